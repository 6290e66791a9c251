"""A Python client against the real server and the shipped model: the stubs come from the repository's .proto, as a
user's would. Run by .ci/run after a release build:

    python -m pytest tests/python
"""

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TASNIF_BINARY", ROOT / "target/release/tasnif")
SERVICE = "tasnif.v1.Classifier"
START_LIMIT_S, CALL_LIMIT_S, STOP_LIMIT_S = 60, 60, 60

# Sentences written for this test.
SPORT_TITLE = "المنتخب يفوز في المباراة النهائية ويحرز كأس البطولة"
SPORT = "سجل المهاجم هدفين في الشوط الثاني وقاد فريقه إلى الفوز بلقب الدوري أمام جماهير غفيرة في الملعب."
ECONOMY = "تراجعت أسعار النفط في ختام التداولات وانخفض مؤشر البورصة مع مخاوف المستثمرين من رفع أسعار الفائدة."


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """The generated modules: messages and stubs."""
    out = tmp_path_factory.mktemp("stubs")
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main([*arguments, "tasnif/v1/tasnif.proto"]) == 0
    sys.path.insert(0, str(out))
    from tasnif.v1 import tasnif_pb2, tasnif_pb2_grpc

    return tasnif_pb2, tasnif_pb2_grpc


class Server:
    """`tasnif serve` on a free port, or on the one that is asked for."""

    def __init__(self, *arguments, listen="127.0.0.1:0", credentials=None, options=None):
        command = [str(BINARY), "serve", "--listen", listen, *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8")
        self.address = None
        for line in self.process.stderr:
            if found := re.search(r"listening.*address=(\S+)", re.sub(r"\x1b\[[0-9;]*m", "", line)):
                self.address = found.group(1)
                break
        assert self.address, f"the server ended with {self.process.wait()}"
        # Its log must not fill the pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        if credentials:
            self.channel = grpc.secure_channel(self.address, credentials, options)
        else:
            self.channel = grpc.insecure_channel(self.address)
        self.wait_until_serving()

    def wait_until_serving(self):
        watch = health_pb2_grpc.HealthStub(self.channel).Watch
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        for reply in watch(request, timeout=START_LIMIT_S, wait_for_ready=True):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_LIMIT_S)


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.channel.close()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def stub(server, api):
    return api[1].ClassifierStub(server.channel)


def classify(stub, api, title, text, **options):
    messages = api[0]
    document = messages.Document(id="1", title=title, text=text)
    request = messages.ClassifyRequest(document=document, options=messages.Options(**options))
    return stub.Classify(request, timeout=CALL_LIMIT_S)


def labels(classification):
    return {task.task: task.label for task in classification.tasks}


def test_an_article_gets_topic_and_sentiment(stub, api):
    reply = classify(stub, api, SPORT_TITLE, SPORT)
    assert labels(reply.classification) == {"topic": "sport", "sentiment": "positive"}
    for task in reply.classification.tasks:
        assert sum(label.score for label in task.labels) == pytest.approx(1, abs=1e-4)
    assert reply.classification.usage.windows == 1
    assert reply.timing.total_us > 0


def test_a_long_article_is_read_to_its_end(stub, api):
    usage = classify(stub, api, "", SPORT * 60).classification.usage
    assert usage.windows > 1 and not usage.truncated


def test_a_bad_document_of_a_batch_fails_alone(stub, api):
    messages = api[0]
    documents = [messages.Document(id=name, text=text) for name, text in [("a", ECONOMY), ("b", " "), ("c", SPORT)]]
    results = stub.ClassifyBatch(messages.ClassifyBatchRequest(documents=documents), timeout=CALL_LIMIT_S).results
    assert [result.id for result in results] == ["a", "b", "c"]
    assert labels(results[0].classification)["topic"] == "economy"
    assert results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert labels(results[2].classification)["topic"] == "sport"


def test_a_stream_answers_in_order(stub, api):
    messages = api[0]
    texts = [SPORT, ECONOMY] * 5
    requests = (
        messages.ClassifyStreamRequest(document=messages.Document(id=str(n), text=text)) for n, text in enumerate(texts)
    )
    results = [reply.result for reply in stub.ClassifyStream(requests, timeout=CALL_LIMIT_S)]
    assert [result.id for result in results] == [str(n) for n in range(len(texts))]
    assert [labels(result.classification)["topic"] for result in results] == ["sport", "economy"] * 5


def test_tokens_point_into_the_text_as_sent(stub, api):
    text = "<b>قَالَ</b> الوزيــر"
    request = api[0].TokenizeRequest(document=api[0].Document(text=text))
    tokens = stub.Tokenize(request, timeout=CALL_LIMIT_S).tokens
    pieces = [text[token.start : token.end] for token in tokens]
    assert pieces and pieces[-1].endswith("ر") and not any("<" in piece for piece in pieces)


def test_models_say_what_they_are(stub, api):
    (model,) = stub.ListModels(api[0].ListModelsRequest(), timeout=CALL_LIMIT_S).models
    assert (model.name, len(model.digest)) == ("tasnif-base", 64)
    assert {task.name: len(task.labels) for task in model.tasks} == {"topic": 17, "sentiment": 3}


def test_a_refusal_names_field_and_reason(stub, api):
    with pytest.raises(grpc.RpcError) as refused:
        classify(stub, api, "", "  ")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    details = rpc_status.from_call(refused.value).details
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in details)
    assert bad_request.field_violations[0].field == "document.text"


def test_reflection_lists_the_service(server):
    services = ProtoReflectionDescriptorDatabase(server.channel).get_services()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)


def test_sigterm_under_load_loses_no_call(api):
    server = Server()
    stub = api[1].ClassifierStub(server.channel)
    answered_first = threading.Event()

    def call(n):
        try:
            reply = classify(stub, api, "", f"{n} {ECONOMY}")
        except grpc.RpcError as error:
            return error.code()
        answered_first.set()
        return labels(reply.classification)["topic"]

    calls = 200
    with concurrent.futures.ThreadPoolExecutor(calls) as pool:
        futures = [pool.submit(call, n) for n in range(calls)]
        assert answered_first.wait(CALL_LIMIT_S)
        status = server.stop()
        outcomes = [future.result(timeout=CALL_LIMIT_S) for future in futures]
    server.channel.close()
    refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.StatusCode)]
    assert set(refused) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(outcomes) == calls and len(refused) < calls
    assert status == 0
