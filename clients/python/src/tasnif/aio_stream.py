"""`AsyncClient.classify_stream`: a task reads the documents, grpc's sends them, the caller's takes the results."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, Callable, Optional, Union

import grpc

from . import convert
from .errors import CallError
from .messages import Document, Options, Result
from .retry import Budget, Retry
from .stream import ended_early, is_resumable
from .v1 import tasnif_pb2 as pb
from .window import Window

OpenCall = Callable[[AsyncIterator[pb.ClassifyStreamRequest], Optional[float]], Any]
"""Starts a ClassifyStream with these requests and so many seconds."""

Documents = Union[Iterable[Union[Document, str]], AsyncIterable[Union[Document, str]]]

# What grpc.aio makes of a write that fails as the call ends, in place of how it ended (grpc/grpc#36066).
_FAILED_WRITE = "Internal error from Core"


async def classify_stream(
    open_call: OpenCall,
    documents: Documents,
    options: Options | None,
    in_flight: int,
    max_message_bytes: int,
    retry: Retry,
    budget: Budget,
) -> AsyncIterator[Result]:
    """Yields a result for each document, in their order, over as many calls as it takes."""
    flow = _Flow(Window(in_flight, retry), options, max_message_bytes)
    feeder = asyncio.ensure_future(flow.feed(documents))
    try:
        while await flow.wait_for_documents(budget):
            for result in flow.leave():  # those that cannot be sent
                yield result
            if not flow.has_work():
                continue
            call = open_call(flow.requests(), budget.remaining_s())
            error = ended_early()
            try:
                async for reply in call:
                    for result in flow.answer(reply):
                        yield result
                    budget.succeeded()
            except grpc.RpcError as failed:
                error = _call_error(failed)
            finally:
                call.cancel()
            if flow.restart():
                continue
            await asyncio.sleep(budget.delay_s(error, is_retriable=is_resumable(error)))
        flow.raise_input_error()
    finally:
        feeder.cancel()
        flow.restart()


def _call_error(failed: grpc.RpcError) -> CallError:
    error = CallError.from_rpc(failed)
    if error.code is grpc.StatusCode.INTERNAL and error.message == _FAILED_WRITE:
        return CallError(grpc.StatusCode.UNAVAILABLE, "the stream ended while a document was sent")
    return error


class _Flow:
    """A window that tasks of one event loop share."""

    def __init__(self, window: Window, options: Options | None, max_message_bytes: int) -> None:
        self._window = window
        self._options = convert.options_to_proto(options)
        self._max_message_bytes = max_message_bytes
        self._change = asyncio.Event()
        self._call = 0
        self._done_call: int | None = None
        self._input_ended = False
        self._input_error: BaseException | None = None

    async def feed(self, documents: Documents) -> None:
        """Reads and encodes the documents as there is room for them. What cannot be sent is answered here."""
        try:
            if isinstance(documents, AsyncIterable):
                async for document in documents:
                    await self._add(document)
            else:
                for document in documents:
                    await self._add(document)
        except BaseException as raised:  # raised again where the results are taken
            self._input_error = raised
        finally:
            self._input_ended = True
            self._notify()

    async def wait_for_documents(self, budget: Budget) -> bool:
        """Waits for a document that has not left; False if there will be none."""
        while self._window.is_empty and not self._input_ended:
            budget.check()
            await self._wait(budget.remaining_s())
        return not self._window.is_empty

    def has_work(self) -> bool:
        """Whether there is a document without a result."""
        return not self._window.is_answered

    async def requests(self) -> AsyncIterator[pb.ClassifyStreamRequest]:
        """The requests of the next call. It ends with the last result, since a document may have to go out again.

        It ends too where every document has a result and some have not left: the caller's task, which waits for a
        reply, would not take them.
        """
        self._call += 1
        call, options = self._call, self._options
        while call == self._call:
            if self._is_done():
                self._done_call = call
                return
            now = time.monotonic()
            document = self._window.send(now)
            if document is None:
                await self._wait(self._window.next_due_s(now))
                continue
            yield pb.ClassifyStreamRequest(document=document, options=options)
            options = None

    def answer(self, reply: pb.ClassifyStreamResponse) -> list[Result]:
        """Takes a reply; the results that are next in order."""
        self._window.answer(convert.result(reply.result), time.monotonic())
        return self.leave()

    def leave(self) -> list[Result]:
        """The results that are next in order."""
        results = list(self._window.leave())
        self._notify()
        return results

    def restart(self) -> bool:
        """Ends the requests of a call that is over; whether it has answered everything there was, or that it took."""
        is_done = self._done_call == self._call
        self._call += 1
        self._window.restart()
        self._notify()
        return is_done or self._window.is_answered

    def raise_input_error(self) -> None:
        """Raises what the caller's documents raised."""
        if self._input_error is not None:
            raise self._input_error

    async def _add(self, document: Document | str) -> None:
        encoded = convert.document_or_result(document, self._options, self._max_message_bytes)
        while not self._window.has_room:
            await self._wait(None)
        self._window.add(encoded)
        self._notify()

    def _is_done(self) -> bool:
        return self._window.is_answered and (self._input_ended or not self._window.is_empty)

    def _notify(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def _wait(self, timeout_s: float | None) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._change.wait(), timeout_s)
