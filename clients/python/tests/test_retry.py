"""Retries, against a server that fails by a script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake import Fake, classify, item, refusing, served

from tasnif import AsyncClient, CallError, Client, Document, Retry, stream
from tasnif.v1 import tasnif_pb2 as pb
from tasnif.window import Window

BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED
GONE = grpc.StatusCode.UNAVAILABLE
TEN = [Document("نص", id=str(number)) for number in range(10)]
IDS = [document.id for document in TEN]
# Later failures alone do not explain a wait of this length.
RETRY_AFTER_S = 0.4


def test_a_wait_is_what_the_server_asks_for_or_more(tmp_path: Path, quick: Retry) -> None:
    fake = Fake(refusing(BUSY, "OVERLOADED", RETRY_AFTER_S), refusing(GONE, "DRAINING", 0.0), classify)
    with served(fake, tmp_path) as target, Client(target, retry=quick, token="secret") as client:
        started = time.monotonic()
        assert client.classify(TEN[3]).id == "3"
        assert time.monotonic() - started >= RETRY_AFTER_S
    assert fake.calls == 3
    assert {metadata["authorization"] for metadata in fake.metadata} == {"Bearer secret"}


def test_waits_grow_with_a_bound_and_never_undercut_the_server() -> None:
    retry = Retry(initial_backoff_s=1, multiplier=2, max_backoff_s=5, jitter=0.5)
    for failures, base in [(1, 1), (2, 2), (3, 4), (4, 5), (9, 5)]:
        delays = [retry.delay_s(failures, None) for _ in range(100)]
        assert base <= min(delays) and max(delays) <= base * 1.5 and len(set(delays)) > 1
    assert all(7 <= retry.delay_s(1, 7) <= 10.5 for _ in range(100))
    assert 5 <= retry.delay_s(5000, None) <= 7.5


@pytest.mark.parametrize(
    ("code", "reason", "retry_after_s", "tries"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_TEXT", None, 1),
        (grpc.StatusCode.INTERNAL, "ENCODER_FAILED", None, 1),
        # Such as a limit of the client's own.
        (BUSY, "", None, 1),
        (BUSY, "OVERLOADED", 0.01, 5),
        (GONE, "DRAINING", None, 5),
    ],
)
def test_tries_end_with_the_error(
    tmp_path: Path, quick: Retry, code: grpc.StatusCode, reason: str, retry_after_s: float | None, tries: int
) -> None:
    fake = Fake(refusing(code, reason, retry_after_s))
    with served(fake, tmp_path) as target, Client(target, retry=quick) as client:
        with pytest.raises(CallError) as failed:
            client.classify("نص")
        assert (failed.value.code, failed.value.reason, fake.calls) == (code, reason, tries)
        assert failed.value.metadata == {"limit": "1"}
        with pytest.raises(CallError):
            list(client.classify_stream(TEN))
        assert fake.calls == 2 * tries


def test_no_wait_goes_beyond_the_deadline(tmp_path: Path) -> None:
    fake = Fake(refusing(BUSY, "OVERLOADED", 3600))
    with served(fake, tmp_path) as target, Client(target, timeout_s=30) as client:
        for call in (client.classify, lambda text: list(client.classify_stream([text], timeout_s=30))):
            with pytest.raises(CallError) as failed:
                call("نص")
            assert failed.value.reason == "OVERLOADED"
    assert fake.calls == 2


def test_a_deadline_holds_over_all_tries(tmp_path: Path) -> None:
    def never(request: Any, context: grpc.ServicerContext) -> None:
        while context.is_active():
            time.sleep(0.01)

    fake = Fake(refusing(GONE, "DRAINING", 0.0), never)
    with served(fake, tmp_path) as target, Client(target) as client:
        with pytest.raises(CallError) as failed:
            client.classify("نص", timeout_s=1)
        assert failed.value.code is grpc.StatusCode.DEADLINE_EXCEEDED and fake.calls == 2
        with pytest.raises(CallError) as failed:
            list(client.classify_stream(TEN, timeout_s=0.5))
        assert failed.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_deadline_holds_where_no_document_comes(tmp_path: Path) -> None:
    def endless() -> Iterator[Document]:
        while True:
            time.sleep(0.05)
            yield from ()

    with Client(f"unix:{tmp_path / 'nobody'}") as client:
        with pytest.raises(CallError) as failed:
            list(client.classify_stream(endless(), timeout_s=0.2))
        assert failed.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_documents_of_a_batch_that_found_no_room_are_sent_again(tmp_path: Path, quick: Retry) -> None:
    sizes = []

    def odd_ones_have_no_room(request: pb.ClassifyBatchRequest, _context: Any) -> pb.ClassifyBatchResponse:
        sizes.append(len(request.documents))
        codes = [BUSY if int(document.id) % 2 else None for document in request.documents]
        return pb.ClassifyBatchResponse(results=map(item, request.documents, codes))

    def everything(request: pb.ClassifyBatchRequest, _context: Any) -> pb.ClassifyBatchResponse:
        sizes.append(len(request.documents))
        return pb.ClassifyBatchResponse(results=map(item, request.documents))

    with served(Fake(odd_ones_have_no_room, everything), tmp_path) as target, Client(target, retry=quick) as client:
        results = client.classify_batch(TEN)
    assert [result.id for result in results] == IDS and all(result.classification for result in results)
    assert sizes == [10, 5]

    (tmp_path / "other").mkdir()
    once = Retry(max_attempts=1)
    with served(Fake(odd_ones_have_no_room), tmp_path / "other") as target, Client(target, retry=once) as client:
        results = client.classify_batch(TEN)
    assert [result.error.code for result in results if result.error] == [BUSY] * 5


def test_answers_of_a_batch_outlast_the_failure_of_a_later_call(tmp_path: Path, quick: Retry) -> None:
    def some_have_no_room(request: pb.ClassifyBatchRequest, _context: Any) -> pb.ClassifyBatchResponse:
        codes = [BUSY if int(document.id) > 6 else None for document in request.documents]
        return pb.ClassifyBatchResponse(results=map(item, request.documents, codes))

    def blocking(target: str) -> list[Any]:
        with Client(target, retry=quick) as client:
            return client.classify_batch(TEN)

    async def asynchronous(target: str) -> list[Any]:
        async with AsyncClient(target, retry=quick) as client:
            return await client.classify_batch(TEN)

    for name, way in (("blocking", blocking), ("asynchronous", lambda target: asyncio.run(asynchronous(target)))):
        (tmp_path / name).mkdir()
        fake = Fake(some_have_no_room, refusing(BUSY, "OVERLOADED", 0.01))
        with served(fake, tmp_path / name) as target:
            results = way(target)
        assert [result.error and result.error.code for result in results] == [None] * 7 + [BUSY] * 3
        assert fake.calls > 2


def break_after(count: int, seen: list[str]) -> Any:
    """A stream that answers so many documents and then breaks."""

    def handle(requests: Iterator[pb.ClassifyStreamRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        for number, request in enumerate(requests):
            if number == count:
                refusing(GONE, "CONNECTION_AGE", 0.0)(request, context)
            seen.append(request.document.id)
            yield pb.ClassifyStreamResponse(result=item(request.document))

    return handle


def test_a_broken_stream_loses_and_doubles_nothing(tmp_path: Path, quick: Retry) -> None:
    seen: list[str] = []
    # Ten tries in a row are more than it may have; with each that gets on, they count anew.
    fake = Fake(*[break_after(1, seen)] * 9, break_after(100, seen))
    with served(fake, tmp_path) as target, Client(target, retry=quick) as client:
        assert [result.id for result in client.classify_stream(TEN, in_flight=4)] == IDS
    assert fake.calls == 10 and seen == IDS


def test_a_stream_goes_on_where_a_proxy_has_lost_the_server(tmp_path: Path, quick: Retry) -> None:
    def lost(requests: Iterator[pb.ClassifyStreamRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        yield pb.ClassifyStreamResponse(result=item(next(requests).document))
        context.abort(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")

    fake = Fake(lost, break_after(100, []))
    with served(fake, tmp_path) as target, Client(target, retry=quick) as client:
        assert [result.id for result in client.classify_stream(TEN, in_flight=4)] == IDS
    assert fake.calls == 2


def test_requests_of_a_call_that_is_over_are_none_though_they_are_asked_for_late() -> None:
    flow = stream._Flow(Window(4, Retry()), None, 1_000_000)
    flow.feed(TEN[:3])
    late, _ = flow.requests(), flow.restart()
    assert list(late) == []
    assert next(flow.requests()).document.id == "0"


def test_a_broken_async_stream_loses_and_doubles_nothing(tmp_path: Path, quick: Retry) -> None:
    async def run(target: str) -> list[str]:
        async with AsyncClient(target, retry=quick) as client:
            assert (await client.classify(TEN[0])).id == "0"
            return [result.id async for result in client.classify_stream(TEN, in_flight=4)]

    seen: list[str] = []
    fake = Fake(refusing(BUSY, "OVERLOADED", 0.01), classify, *[break_after(1, seen)] * 4, break_after(100, seen))
    with served(fake, tmp_path) as target:
        assert asyncio.run(run(target)) == IDS


def test_a_document_of_a_stream_that_found_no_room_is_sent_again_in_its_place(tmp_path: Path, quick: Retry) -> None:
    seen: list[str] = []

    def handle(requests: Iterator[pb.ClassifyStreamRequest], _context: Any) -> Iterator[Any]:
        for request in requests:
            document = request.document
            is_first = document.id not in seen
            seen.append(document.id)
            yield pb.ClassifyStreamResponse(result=item(document, BUSY if document.id == "3" and is_first else None))

    with served(Fake(handle), tmp_path) as target, Client(target, retry=quick) as client:
        results = list(client.classify_stream(TEN))
        assert [result.id for result in results] == IDS and all(result.classification for result in results)
        assert sorted(seen) == sorted([*IDS, "3"])
    once = Retry(max_attempts=1)
    seen.clear()
    (tmp_path / "other").mkdir()
    with served(Fake(handle), tmp_path / "other") as target, Client(target, retry=once) as client:
        results = list(client.classify_stream(TEN))
        assert [result.id for result in results if result.error] == ["3"]


def test_a_stream_without_documents_for_long_goes_on_over_a_new_one(tmp_path: Path, quick: Retry) -> None:
    ended: list[bool] = []

    def impatient(requests: Iterator[pb.ClassifyStreamRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        yield pb.ClassifyStreamResponse(result=item(next(requests).document))
        ended.append(True)
        refusing(grpc.StatusCode.DEADLINE_EXCEEDED, "MESSAGE_TIMEOUT")(None, context)

    def slow() -> Iterator[Document]:
        for number, document in enumerate(TEN):
            while len(ended) < min(number, 3):
                time.sleep(0.01)
            yield document

    fake = Fake(impatient, impatient, impatient, break_after(100, []))
    with served(fake, tmp_path) as target, Client(target, retry=quick) as client:
        assert [result.id for result in client.classify_stream(slow())] == IDS
    assert fake.calls == 4
