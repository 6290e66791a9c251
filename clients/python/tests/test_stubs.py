"""The committed stubs are those of the repository's .proto."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from tasnif.v1 import tasnif_pb2, tasnif_pb2_grpc

PROTO = "tasnif/v1/tasnif.proto"


def test_the_stubs_are_up_to_date(tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={out}", PROTO]) == 0
    (expected,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    actual = descriptor_pb2.FileDescriptorProto()
    tasnif_pb2.DESCRIPTOR.CopyToProto(actual)
    # Written by another version of protoc, so they are compared as what they say, not by their bytes.
    for message in actual.message_type:
        for field in message.field:
            field.ClearField("json_name")
    for message in expected.message_type:
        for field in message.field:
            field.ClearField("json_name")
    assert actual == expected, "run clients/python/generate.sh"
    methods = {method.name for method in expected.service[0].method}
    servicer = tasnif_pb2_grpc.ClassifierServicer
    assert {name for name in vars(servicer) if not name.startswith("_")} == methods, "run clients/python/generate.sh"
