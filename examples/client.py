"""A Python client of a running server (`cargo run --release -- serve`):

    pip install grpcio-tools
    python -m grpc_tools.protoc -Iproto --python_out=. --grpc_python_out=. tasnif/v1/tasnif.proto
    PYTHONPATH=. python examples/client.py article.txt
"""

import sys

import grpc
from tasnif.v1 import tasnif_pb2, tasnif_pb2_grpc

text = open(sys.argv[1], encoding="utf-8").read()
with grpc.insecure_channel("127.0.0.1:50051") as channel:
    stub = tasnif_pb2_grpc.ClassifierStub(channel)
    document = tasnif_pb2.Document(id="1", text=text)
    reply = stub.Classify(tasnif_pb2.ClassifyRequest(document=document), timeout=30)
for task in reply.classification.tasks:
    print(f"{task.task}: {task.label} ({task.score:.0%})")
usage = reply.classification.usage
print(f"{usage.tokens} tokens in {usage.windows} windows, truncated: {usage.truncated}")
