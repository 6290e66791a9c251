"""The client against the real server."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from conftest import LIMIT_S, Server, article, serving

from tasnif import AsyncClient, CallError, Client, Document, ItemError, LongText, Options, Result, Retry, Tls

BAD = 3


def documents(count: int) -> list[Document]:
    """As many, with ids, of which one is empty."""
    return [Document("" if number == BAD else article(number), id=str(number)) for number in range(count)]


def assert_complete(results: list[Result], count: int) -> None:
    assert [result.id for result in results] == [str(number) for number in range(count)]
    (bad,) = (result for result in results if result.error)
    assert bad.id == str(BAD)
    assert isinstance(bad.error, ItemError) and bad.error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert all(result.unwrap()["topic"].label for result in results if result is not bad)


def test_a_document_gets_every_task(client: Client) -> None:
    answer = client.classify(Document(article(1), title="خبر عاجل", id="a"), Options(with_logits=True))
    assert (answer.id, answer.model, [task.task for task in answer.tasks]) == (
        "a",
        "tasnif-base",
        ["topic", "sentiment"],
    )
    topic = answer["topic"]
    assert len(topic.labels) == 17 and topic.labels[0].label == topic.label
    assert topic.labels[0].name_ar and topic.labels[0].logit is not None
    assert sum(label.score for label in topic.labels) == pytest.approx(1, abs=1e-4)
    assert answer.usage.tokens > 4 and not answer.usage.truncated
    assert answer.timing is not None and answer.timing.total_us > 0


def test_options_are_the_servers(client: Client) -> None:
    answer = client.classify(article(1), Options(tasks=["sentiment"], top_k=1, evidence=1))
    assert [(task.task, len(task.labels)) for task in answer.tasks] == [("sentiment", 1)]
    assert answer.tasks[0].labels[0].logit is None
    with pytest.raises(CallError) as refused:
        client.classify(" ".join(map(article, range(100))), Options(long_text=LongText.REJECT))
    assert refused.value.reason == "TEXT_TOO_LONG"
    assert int(refused.value.metadata["actual"]) > int(refused.value.metadata["limit"])


def test_what_is_served_and_what_would_be_read(client: Client) -> None:
    (model,) = client.models()
    assert (model.name, len(model.digest)) == ("tasnif-base", 64)
    assert {task.name: len(task.labels) for task in model.tasks} == {"topic": 17, "sentiment": 3}
    text = article(2)
    tokens = client.tokenize(text)
    assert text.startswith("".join(text[token.start : token.end] for token in tokens if token.end)[:3])


def test_an_error_says_what_where_and_survives_pickling(client: Client) -> None:
    with pytest.raises(CallError) as refused:
        client.classify("  ")
    error = pickle.loads(pickle.dumps(refused.value))
    assert (error.code, error.reason, error.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "EMPTY_TEXT",
        "document.text",
    )
    assert not error.is_retriable and error.message in str(error)


def test_a_bad_document_of_a_batch_fails_alone(client: Client) -> None:
    assert_complete(client.classify_batch(documents(10)), 10)


def test_a_bad_document_of_a_stream_fails_alone(client: Client) -> None:
    assert_complete(list(client.classify_stream(documents(50), in_flight=7)), 50)
    assert list(client.classify_stream([])) == []


def test_a_stream_gives_results_before_the_next_document_is_there(client: Client) -> None:
    turn = threading.Semaphore()

    def one_by_one() -> Iterator[Document]:
        for document in documents(6):
            assert turn.acquire(timeout=LIMIT_S)
            yield document

    results = []
    for result in client.classify_stream(one_by_one()):
        results.append(result)
        turn.release()
    assert_complete(results, 6)


def test_a_stream_reads_no_further_ahead_than_it_may(client: Client) -> None:
    read: list[int] = []

    def counted() -> Iterator[Document]:
        for number in range(40):
            read.append(number)
            yield Document(article(number), id=str(number))

    for taken, _ in enumerate(client.classify_stream(counted(), in_flight=5), 1):
        # One more is read to be there when there is room.
        assert len(read) <= taken + 5 + 1


def test_a_stream_may_be_left(client: Client) -> None:
    results = client.classify_stream(documents(1000), in_flight=4)
    assert next(results).id == "0"
    results.close()  # type: ignore[attr-defined]
    assert client.classify(article(1)).tasks


def test_what_the_documents_raise_comes_after_the_results(client: Client) -> None:
    def broken() -> Iterator[Document]:
        yield from documents(5)
        raise RuntimeError("the disk is gone")

    results = []
    with pytest.raises(RuntimeError, match="the disk is gone"):
        results.extend(client.classify_stream(broken()))
    assert_complete(list(client.classify_stream(documents(5))), 5)


def test_asyncio_does_the_same(server: Server) -> None:
    async def run() -> None:
        async with AsyncClient(server.target) as client:
            await client.wait_until_serving(LIMIT_S)
            assert [model.name for model in await client.models()] == ["tasnif-base"]
            assert (await client.classify(Document(article(1), id="a")))["topic"].label
            assert await client.tokenize(article(1))
            assert_complete(await client.classify_batch(documents(10)), 10)
            assert_complete([result async for result in client.classify_stream(documents(50), in_flight=7)], 50)
            with pytest.raises(CallError) as refused:
                await client.classify(" ")
            assert refused.value.reason == "EMPTY_TEXT"

            async def broken():  # type: ignore[no-untyped-def]
                for document in documents(5):
                    yield document
                raise RuntimeError("the disk is gone")

            results = []
            with pytest.raises(RuntimeError, match="the disk is gone"):
                async for result in client.classify_stream(broken()):
                    results.append(result)
            assert_complete(results, 5)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_stream_outlives_its_server(tmp_path: Path, how: str) -> None:
    with serving(tmp_path) as server, Client(server.target) as client:
        results = []
        for result in client.classify_stream(documents(60), in_flight=16):
            results.append(result)
            if len(results) == 20:
                getattr(server, how)()
                server.start()
    assert_complete(results, 60)


def test_an_async_stream_outlives_its_server(tmp_path: Path) -> None:
    async def run(server: Server) -> list[Result]:
        results = []
        async with AsyncClient(server.target) as client:
            async for result in client.classify_stream(documents(60), in_flight=16):
                results.append(result)
                if len(results) == 20:
                    server.kill()
                    server.start()
        return results

    with serving(tmp_path) as server:
        assert_complete(asyncio.run(run(server)), 60)


def test_overload_is_waited_out(tmp_path: Path) -> None:
    # Room for one document of this length; interactive calls beyond it are refused with a time to come back.
    tight = [f"--set=engine.{key}=512" for key in ("max_queued_tokens_per_client", "max_batch_tokens")]
    tight.append("--set=engine.max_queued_tokens=683")  # three quarters of it must hold a window
    text = " ".join(map(article, range(25)))
    refusals, answers = [], []

    with (
        serving(tmp_path, *tight) as server,
        Client(server.target, retry=Retry(max_attempts=1000, max_backoff_s=0.2)) as client,
    ):
        impatient = Client(server.target, retry=Retry(max_attempts=1))

        def call(number: int) -> None:
            try:
                impatient.classify(text)
            except CallError as error:
                refusals.append(error)
            answers.append(client.classify(Document(text, id=str(number))))

        threads = [threading.Thread(target=call, args=[number]) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        impatient.close()
    assert {int(answer.id) for answer in answers} == set(range(5))
    assert refusals and {error.code for error in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert all(error.retry_after_s for error in refusals)


def test_nobody_there_is_said_within_the_time(tmp_path: Path, quick: Retry) -> None:
    with Client(f"unix:{tmp_path / 'nobody'}", retry=quick) as client:
        with pytest.raises(CallError) as refused:
            client.classify(article(1))
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(CallError) as refused:
            next(client.classify_stream([article(1)]))
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(CallError) as refused:
            client.wait_until_serving(0.1)
        assert refused.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_mutual_tls_and_token(tmp_path: Path, quick: Retry) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, certificate in {
        "server": authority.issue_cert("news.test"),
        "client": authority.issue_cert("me"),
    }.items():
        certificate.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    token = "a-token-of-some-length"
    (tmp_path / "tokens").write_text(f"tests {token}\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "server.tls.cert": "server.pem",
        "server.tls.key": "server.key",
        "server.tls.client_ca": "ca.pem",
        "server.auth.tokens_file": "tokens",
    }
    arguments = []
    for key, file in settings.items():
        arguments += ["--set", f"{key}={tmp_path / file}"]
    tls = Tls(tmp_path / "ca.pem", tmp_path / "client.pem", tmp_path / "client.key", server_name="news.test")
    anonymous = Tls(tmp_path / "ca.pem", server_name="news.test")
    target = f"https://127.0.0.1:{port}"
    server = Server(tmp_path, *arguments, listen=f"127.0.0.1:{port}")
    try:
        with Client(target, tls=tls, token=lambda: token) as client:
            client.wait_until_serving(LIMIT_S)
            assert client.classify(article(1)).tasks
            assert len(list(client.classify_stream([article(1)]))) == 1
        with Client(target, tls=tls, retry=quick) as client, pytest.raises(CallError) as refused:
            client.classify(article(1))
        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
        with Client(target, tls=anonymous, token=token, retry=quick) as client, pytest.raises(CallError) as refused:
            client.classify(article(1))
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    finally:
        server.kill()


def test_targets_and_files_must_fit() -> None:
    with pytest.raises(ValueError, match="without TLS"):
        Client("http://localhost:1", tls=Tls())
    with pytest.raises(ValueError, match="Unix socket"):
        Client("unix:/tmp/x", tls=Tls())
    with pytest.raises(ValueError, match="both"):
        Client("localhost:1", tls=Tls(certificate="x"))
