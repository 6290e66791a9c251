"""Documents that cannot be sent: each fails alone, in its place, and the server never sees it."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Callable

import grpc
import pytest
from fake import Fake, classify, item, refusing, served

from tasnif import AsyncClient, CallError, Client, Document, Options, Result, Retry
from tasnif.convert import MAX_MESSAGE_BYTES
from tasnif.v1 import tasnif_pb2 as pb

pytestmark = pytest.mark.timeout(60)

# A text that was cut in the middle of an emoji.
CUT: str = json.loads(r'"خبر \ud83d"')
LIMIT_S = 10


def unsendable(text: Any = CUT, **fields: Any) -> Document:
    return Document(text, **{"id": "bad", **fields})


def good(number: int) -> Document:
    return Document("نص", id=str(number))


def answering(seen: list[str]) -> Callable[..., Any]:
    """Answers a batch or a stream well, and notes whose documents came."""

    def handle(request: Any, _context: Any) -> Any:
        if isinstance(request, pb.ClassifyBatchRequest):
            seen.extend(document.id for document in request.documents)
            return pb.ClassifyBatchResponse(results=map(item, request.documents))
        return stream(request)

    def stream(requests: Iterator[pb.ClassifyStreamRequest]) -> Iterator[pb.ClassifyStreamResponse]:
        for request in requests:
            seen.append(request.document.id)
            yield pb.ClassifyStreamResponse(result=item(request.document))

    return handle


def stream(target: str, documents: Any, in_flight: int = 128, taken: Any = None, **arguments: Any) -> list[Result]:
    with Client(target, **arguments) as client:
        results = []
        for result in client.classify_stream(documents, in_flight=in_flight):
            results.append(result)
            if taken:
                taken(result)
        return results


def batch(target: str, documents: list[Any], **arguments: Any) -> list[Result]:
    with Client(target, **arguments) as client:
        return client.classify_batch(documents)


def async_stream(
    target: str, documents: Any, in_flight: int = 128, taken: Any = None, **arguments: Any
) -> list[Result]:
    async def each() -> AsyncIterator[Any]:
        """The documents, which may wait for one another without holding up the loop."""
        iterator = iter(documents)
        while (document := await asyncio.to_thread(next, iterator, None)) is not None:
            yield document

    async def run() -> list[Result]:
        results = []
        async with AsyncClient(target, **arguments) as client:
            async for result in client.classify_stream(each(), in_flight=in_flight):
                results.append(result)
                if taken:
                    taken(result)
        return results

    return asyncio.run(run())


def async_batch(target: str, documents: list[Any], **arguments: Any) -> list[Result]:
    async def run() -> list[Result]:
        async with AsyncClient(target, **arguments) as client:
            return await client.classify_batch(documents)

    return asyncio.run(run())


EVERY_WAY = pytest.mark.parametrize("way", [stream, async_stream, batch, async_batch])
EVERY_STREAM = pytest.mark.parametrize("way", [stream, async_stream])


@EVERY_WAY
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (unsendable(), "document.text has '\\ud83d' at 4, a lone surrogate"),
        (unsendable("نص", title=CUT), "document.title has '\\ud83d' at 4, a lone surrogate"),
        (unsendable("نص", id=CUT), "document.id has '\\ud83d' at 4, a lone surrogate"),
        (unsendable(float("nan")), "document.text is nan; it must be a string"),
        (unsendable(b"\xff"), "document.text is b'\\xff'; it must be a string"),
        (CUT, "document.text has"),
        (5, "document is 5; it must be a Document or a string"),
        (
            unsendable("x" * MAX_MESSAGE_BYTES),
            "document.text makes a message of 4194319 bytes; the limit, max_message_bytes, is 4194304",
        ),
    ],
    ids=["text", "title", "id", "nan", "bytes", "string", "number", "oversized"],
)
def test_one_fails_alone_in_its_place(tmp_path: Path, way: Any, bad: Any, message: str) -> None:
    seen: list[str] = []
    with served(Fake(answering(seen)), tmp_path) as target:
        first, failed, last = way(target, [good(0), bad, good(2)])
    assert [first.unwrap().id, last.unwrap().id] == seen == ["0", "2"]
    assert failed.id == getattr(bad, "id", "")
    assert failed.error.code is grpc.StatusCode.INVALID_ARGUMENT and failed.error.message.startswith(message)
    assert failed.error.message.encode() and not failed.error.is_retriable


@EVERY_WAY
def test_the_limit_is_of_the_whole_message_and_may_be_set(tmp_path: Path, way: Any) -> None:
    document = Document("x" * 1000, id="1")
    limit = pb.ClassifyStreamRequest(document=pb.Document(id="1", text=document.text)).ByteSize()
    with served(Fake(answering([])), tmp_path) as target:
        (fits,) = way(target, [document], max_message_bytes=limit)
        (exceeds,) = way(target, [document], max_message_bytes=limit - 1)
    assert fits.classification and exceeds.error


def test_options_count(tmp_path: Path) -> None:
    document, limit = Document("x" * 1000), pb.ClassifyBatchRequest(documents=[pb.Document(text="x" * 1000)]).ByteSize()
    with served(Fake(answering([])), tmp_path) as target, Client(target, max_message_bytes=limit) as client:
        assert [result.error for result in client.classify_stream([document])] == [None]
        assert [result.error for result in client.classify_stream([document], Options(top_k=1))] != [None]


@EVERY_WAY
def test_where_nothing_can_be_sent_nobody_is_called(tmp_path: Path, way: Any) -> None:
    results = way(f"unix:{tmp_path / 'nobody'}", [unsendable(id=str(number)) for number in range(5)])
    assert [result.id for result in results if result.error] == ["0", "1", "2", "3", "4"]


def test_a_batch_of_nothing_is_still_the_servers_to_refuse(tmp_path: Path) -> None:
    fake = Fake(refusing(grpc.StatusCode.INVALID_ARGUMENT, "BATCH_SIZE"))
    with served(fake, tmp_path) as target, pytest.raises(CallError) as refused:
        batch(target, [])
    assert refused.value.reason == "BATCH_SIZE"


def test_a_batch_keeps_its_order_where_some_are_sent_again(tmp_path: Path, quick: Retry) -> None:
    def busy(request: pb.ClassifyBatchRequest, _context: Any) -> pb.ClassifyBatchResponse:
        codes = [None, grpc.StatusCode.RESOURCE_EXHAUSTED]
        return pb.ClassifyBatchResponse(results=map(item, request.documents, codes))

    seen: list[str] = []
    with served(Fake(busy, answering(seen)), tmp_path) as target:
        results = batch(target, [unsendable(), good(1), unsendable(), good(3)], retry=quick)
    assert [result.id for result in results] == ["bad", "1", "bad", "3"] and seen == ["3"]


@EVERY_STREAM
@pytest.mark.parametrize("in_flight", [1, 2, 128])
def test_many_in_a_row_do_not_stop_a_stream(tmp_path: Path, way: Any, in_flight: int) -> None:
    documents = [good(0), *[unsendable()] * 5, good(6), good(7), *[unsendable()] * 5]
    # The calls that this takes are no failures.
    once, seen = Retry(max_attempts=1), list[str]()
    with served(Fake(answering(seen)), tmp_path) as target:
        results = way(target, documents, in_flight, retry=once)
    assert [result.id for result in results] == [document.id for document in documents]
    assert [result.id for result in results if result.classification] == seen == ["0", "6", "7"]


@EVERY_STREAM
def test_a_broken_stream_loses_and_doubles_nothing(tmp_path: Path, way: Any, quick: Retry) -> None:
    seen: list[str] = []

    def break_soon(requests: Iterator[pb.ClassifyStreamRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        for _ in range(2):
            yield from answering(seen)(iter([next(requests)]), context)
        refusing(grpc.StatusCode.UNAVAILABLE, "CONNECTION_AGE", 0.0)(None, context)

    documents = [unsendable() if number % 3 == 1 else good(number) for number in range(20)]
    with served(Fake(*[break_soon] * 4, answering(seen)), tmp_path) as target:
        results = way(target, documents, 4, retry=quick)
    assert [result.id for result in results] == [document.id for document in documents]
    assert seen == [document.id for document in documents if document.id != "bad"]


@EVERY_STREAM
def test_an_error_comes_before_the_next_document_is_there(tmp_path: Path, way: Any) -> None:
    expected = [unsendable(), good(1), unsendable(), unsendable(), good(4), unsendable()]
    turn = threading.Semaphore()

    def one_by_one() -> Iterator[Document]:
        for document in expected:
            assert turn.acquire(timeout=LIMIT_S)
            yield document

    with served(Fake(answering([])), tmp_path) as target:
        results = way(target, one_by_one(), taken=lambda _: turn.release())
    assert [result.id for result in results] == [document.id for document in expected]


@EVERY_STREAM
def test_a_call_that_ends_for_an_error_is_no_failure(tmp_path: Path, way: Any) -> None:
    seen: list[str] = []
    answered, ended, added = threading.Event(), threading.Event(), threading.Event()

    def documents() -> Iterator[Document]:
        yield good(0)
        assert answered.wait(LIMIT_S)
        yield unsendable()
        assert ended.wait(LIMIT_S)
        yield good(2)
        added.set()

    def end_late(requests: Iterator[pb.ClassifyStreamRequest], context: Any) -> Iterator[pb.ClassifyStreamResponse]:
        """With the next document there, which belongs to the next call."""
        yield from answering(seen)(requests, context)
        ended.set()
        assert added.wait(LIMIT_S)

    fake = Fake(end_late, answering(seen))
    with served(fake, tmp_path) as target:
        results = way(target, documents(), taken=lambda _: answered.set(), retry=Retry(max_attempts=1))
    assert [result.id for result in results] == ["0", "bad", "2"] and seen == ["0", "2"] and fake.calls == 2


def test_a_call_of_one_raises_an_error_of_this_package(tmp_path: Path) -> None:
    async def call_async() -> None:
        async with AsyncClient(nobody) as client:
            await client.classify(CUT)

    nobody = f"unix:{tmp_path / 'nobody'}"
    with Client(nobody) as client:
        for call in (
            lambda: client.classify(CUT),
            lambda: client.tokenize(unsendable()),
            lambda: asyncio.run(call_async()),
        ):
            with pytest.raises(CallError) as refused:
                call()
            error = pickle.loads(pickle.dumps(refused.value))
            assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "document.text")


def test_none_in_a_field_is_as_good_as_nothing(tmp_path: Path) -> None:
    with served(Fake(classify), tmp_path) as target, Client(target) as client:
        assert client.classify(Document("نص", title=None, id="1")).id == "1"  # type: ignore[arg-type]


def test_an_async_input_that_is_cancelled_ends_the_stream(tmp_path: Path) -> None:
    async def documents() -> AsyncIterator[Document]:
        yield good(1)
        raise asyncio.CancelledError

    async def collect(client: AsyncClient, results: list[str]) -> None:
        async for result in client.classify_stream(documents()):
            results.append(result.id)

    async def run(target: str) -> None:
        async with AsyncClient(target) as client:
            results: list[str] = []
            collecting = asyncio.ensure_future(collect(client, results))
            ended, _ = await asyncio.wait([collecting], timeout=LIMIT_S)
            assert ended and collecting.cancelled() and results == ["1"]

    with served(Fake(answering([])), tmp_path) as target:
        asyncio.run(run(target))
