"""Stubs generated from `proto/tasnif/v1/tasnif.proto` by `generate.sh`."""
