#!/usr/bin/env bash
# Lints and tests the Python client against target/release/tasnif, or the binary that TASNIF_BINARY names, with the
# versions of requirements-test.txt. The virtual environment is kept in target/, or where TASNIF_VENV says.
set -euo pipefail
cd "$(dirname "$0")"
venv=${TASNIF_VENV:-../../target/python-client}
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements-test.txt --editable .
"$venv/bin/ruff" check --quiet .
"$venv/bin/ruff" format --check --quiet .
"$venv/bin/mypy" --no-error-summary
"$venv/bin/python" -m pytest -q "$@"
