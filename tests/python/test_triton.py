"""NVIDIA's client for Triton against the real server and the shipped model, over the Open Inference Protocol. Run by
.ci/run after a release build:

    python -m pytest tests/python
"""

import asyncio
import queue

import numpy
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from test_server import CALL_LIMIT_S, ECONOMY, SPORT, SPORT_TITLE, Server, api  # noqa: F401: a fixture
from tritonclient.utils import InferenceServerException

MODEL = "tasnif-base"
TOPICS, SENTIMENTS = 17, 3


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.channel.close()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.address) as client:
        yield client


def tensor(name, values, module=triton):
    array = numpy.array(values, dtype=numpy.object_)
    tensor = module.InferInput(name, array.shape, "BYTES")
    return tensor.set_data_from_numpy(array)


def infer(client, *inputs, **options):
    return client.infer(MODEL, list(inputs), client_timeout=CALL_LIMIT_S, **options)


def strings(result, name):
    return [value.decode() for value in result.as_numpy(name)]


def test_the_server_and_its_model_are_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")


def test_metadata_names_the_tensors(client):
    metadata = client.get_server_metadata(as_json=True)
    assert metadata["name"] == "tasnif"
    metadata = client.get_model_metadata(MODEL, as_json=True)
    assert metadata["name"] == MODEL and metadata["platform"] == "tasnif_candle"
    (revision,) = metadata["versions"]
    assert client.is_model_ready(MODEL, revision)
    assert {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]} == {"text": "BYTES", "title": "BYTES"}
    outputs = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["outputs"]}
    assert outputs == {
        "topic.label": ("BYTES", ["-1"]),
        "topic.scores": ("FP32", ["-1", str(TOPICS)]),
        "topic.abstained": ("BOOL", ["-1"]),
        "sentiment.label": ("BYTES", ["-1"]),
        "sentiment.scores": ("FP32", ["-1", str(SENTIMENTS)]),
        "sentiment.abstained": ("BOOL", ["-1"]),
    }


def test_documents_get_labels_and_scores(client):
    result = infer(client, tensor("text", [SPORT, ECONOMY]), tensor("title", [SPORT_TITLE, ""]), request_id="7")
    assert strings(result, "topic.label") == ["sport", "economy"]
    assert strings(result, "sentiment.label")[0] == "positive"
    scores = result.as_numpy("topic.scores")
    assert scores.shape == (2, TOPICS) and scores.dtype == numpy.float32
    assert scores.sum(axis=1) == pytest.approx([1, 1], abs=1e-4)
    assert result.as_numpy("topic.abstained").dtype == numpy.bool_
    assert result.as_numpy("nothing") is None
    response = result.get_response()
    assert (response.model_name, response.id) == (MODEL, "7")


def test_a_column_is_as_good_as_a_row(client):
    row = infer(client, tensor("text", [SPORT, ECONOMY]))
    column = infer(client, tensor("text", [[SPORT], [ECONOMY]]))
    for name in ["topic.scores", "sentiment.scores"]:
        assert column.as_numpy(name) == pytest.approx(row.as_numpy(name), abs=1e-4)


def test_bytes_are_as_good_as_strings(client):
    result = infer(client, tensor("text", [SPORT.encode()]))
    assert strings(result, "topic.label") == ["sport"]


def test_answers_equal_those_of_the_other_service(server, client, api):
    messages, stubs = api
    document = messages.Document(title=SPORT_TITLE, text=SPORT)
    stub = stubs.ClassifierStub(server.channel)
    tasks = stub.Classify(messages.ClassifyRequest(document=document), timeout=CALL_LIMIT_S).classification.tasks
    models = stub.ListModels(messages.ListModelsRequest(), timeout=CALL_LIMIT_S).models
    result = infer(client, tensor("text", [SPORT]), tensor("title", [SPORT_TITLE]))
    for task, described in zip(tasks, models[0].tasks, strict=True):
        expected = {label.label: label.score for label in task.labels}
        labels = [label.label for label in described.labels]
        scores = dict(zip(labels, result.as_numpy(f"{task.task}.scores")[0], strict=True))
        assert scores == pytest.approx(expected, abs=1e-4)


def test_outputs_can_be_chosen_and_classes_named(client):
    outputs = [
        triton.InferRequestedOutput("sentiment.label"),
        triton.InferRequestedOutput("topic.scores", class_count=3),
    ]
    result = infer(client, tensor("text", [SPORT, ECONOMY]), outputs=outputs)
    assert [output.name for output in result.get_response().outputs] == ["sentiment.label", "topic.scores"]
    classes = result.as_numpy("topic.scores")
    assert classes.shape == (2, 3)
    score, _, label = classes[0][0].decode().split(":")
    assert label == "sport" and 0 < float(score) <= 1


def test_calls_can_be_asynchronous(client):
    answers = queue.Queue()
    calls = 20
    for number in range(calls):
        text = tensor("text", [SPORT if number % 2 else ECONOMY])
        client.async_infer(
            MODEL,
            [text],
            lambda result, error: answers.put((result, error)),
            request_id=str(number),
            client_timeout=CALL_LIMIT_S,
        )
    for _ in range(calls):
        result, error = answers.get(timeout=CALL_LIMIT_S)
        assert error is None
        expected = "sport" if int(result.get_response().id) % 2 else "economy"
        assert strings(result, "topic.label") == [expected]


def test_the_asyncio_client_works(server):
    async def main():
        async with triton_aio.InferenceServerClient(server.address) as client:
            assert await client.is_server_ready() and await client.is_model_ready(MODEL)
            calls = [client.infer(MODEL, [tensor("text", [text], triton_aio)]) for text in [SPORT, ECONOMY]]
            return [strings(result, "topic.label") for result in await asyncio.gather(*calls)]

    assert asyncio.run(main()) == [["sport"], ["economy"]]


def test_what_clients_may_add_is_taken(client):
    options = {"sequence_id": 7, "sequence_start": True, "sequence_end": True, "priority": 2, "timeout": 60_000_000}
    result = infer(client, tensor("text", [SPORT]), parameters={"mine": 1}, **options)
    assert strings(result, "topic.label") == ["sport"]


def refused(client, *inputs, **options):
    with pytest.raises(InferenceServerException) as refused:
        infer(client, *inputs, **options)
    return refused.value.status(), refused.value.message()


def test_a_refusal_says_what_is_wrong(client):
    status, message = refused(client, tensor("body", [SPORT]))
    assert status == "StatusCode.INVALID_ARGUMENT" and message.startswith('inputs[0].name is "body"')
    status, message = refused(client, tensor("text", [SPORT, " "]))
    assert status == "StatusCode.INVALID_ARGUMENT" and message.startswith("document 1: ")
    status, message = refused(client, tensor("text", [SPORT]), model_version="9")
    assert status == "StatusCode.NOT_FOUND" and '"9"' in message
    status, _ = refused(client, tensor("text", [SPORT]), timeout=1)
    assert status == "StatusCode.DEADLINE_EXCEEDED"
    numbers = triton.InferInput("text", [1], "FP32").set_data_from_numpy(numpy.zeros(1, numpy.float32))
    status, message = refused(client, numbers)
    assert status == "StatusCode.INVALID_ARGUMENT" and "inputs[0].datatype" in message
