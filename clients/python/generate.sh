#!/usr/bin/env bash
# Generates src/tasnif/v1 from the repository's .proto. The stubs are committed, so that installing needs no compiler,
# and made by this old version on purpose: its code runs on protobuf 4.25 and everything later, that of newer ones only
# on their own major version and the next. tests/test_stubs.py says when they are out of date.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grpcio-tools==1.62.3 'setuptools<81'
"$work/venv/bin/python" -m grpc_tools.protoc -I../../proto --python_out=src --pyi_out=src --grpc_python_out=src \
    tasnif/v1/tasnif.proto
