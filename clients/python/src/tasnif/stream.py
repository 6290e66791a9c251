"""`Client.classify_stream`: one thread reads the documents, gRPC's sends them, the caller's takes the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional

import grpc

from . import convert
from .errors import CallError
from .messages import Document, Options, Result
from .retry import Budget, Retry
from .v1 import tasnif_pb2 as pb
from .window import Window

OpenCall = Callable[[Iterator[pb.ClassifyStreamRequest], Optional[float]], Any]
"""Starts a ClassifyStream with these requests and so many seconds."""


def classify_stream(
    open_call: OpenCall,
    documents: Iterable[Document | str],
    options: Options | None,
    in_flight: int,
    max_message_bytes: int,
    retry: Retry,
    budget: Budget,
) -> Iterator[Result]:
    """Yields a result for each document, in their order, over as many calls as it takes."""
    flow = _Flow(Window(in_flight, retry), options, max_message_bytes)
    # A daemon, since the caller's documents may take for ever.
    threading.Thread(target=flow.feed, args=(documents,), name="tasnif-documents", daemon=True).start()
    try:
        while flow.wait_for_documents(budget):
            yield from flow.leave()  # those that cannot be sent
            if not flow.has_work():
                continue
            call = open_call(flow.requests(), budget.remaining_s())
            error = ended_early()
            try:
                for reply in call:
                    yield from flow.answer(reply)
                    budget.succeeded()
            except grpc.RpcError as failed:
                error = CallError.from_rpc(failed)
            finally:
                call.cancel()
            if flow.restart():
                continue
            time.sleep(budget.delay_s(error, is_retriable=is_resumable(error)))
        flow.raise_input_error()
    finally:
        flow.close()


def ended_early() -> CallError:
    """What it is if a stream ends well before every document has its result."""
    return CallError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream before the last result")


def is_resumable(error: CallError) -> bool:
    """Whether to go on over a new stream.

    One without documents for long is ended by the server. Where there is no reason, as the server gives for faults of
    its own, the way to it broke, which proxies call INTERNAL or UNKNOWN.
    """
    is_broken = error.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and not error.reason
    return is_broken or error.is_retriable or error.reason == "MESSAGE_TIMEOUT"


class _Flow:
    """A window that three threads share."""

    def __init__(self, window: Window, options: Options | None, max_message_bytes: int) -> None:
        self._window = window
        self._options = convert.options_to_proto(options)
        self._max_message_bytes = max_message_bytes
        self._changed = threading.Condition()
        self._call = 0
        self._done_call: int | None = None
        self._input_ended = False
        self._input_error: BaseException | None = None
        self._closed = False

    def feed(self, documents: Iterable[Document | str]) -> None:
        """Reads and encodes the documents as there is room for them. What cannot be sent is answered here."""
        error: BaseException | None = None
        try:
            for document in documents:
                encoded = convert.document_or_result(document, self._options, self._max_message_bytes)
                with self._changed:
                    self._changed.wait_for(lambda: self._window.has_room or self._closed)
                    if self._closed:
                        return
                    self._window.add(encoded)
                    self._changed.notify_all()
        except BaseException as raised:  # raised again where the results are taken
            error = raised
        with self._changed:
            self._input_ended, self._input_error = True, error
            self._changed.notify_all()

    def wait_for_documents(self, budget: Budget) -> bool:
        """Waits for a document that has not left; False if there will be none."""
        with self._changed:
            while self._window.is_empty and not self._input_ended:
                budget.check()
                self._changed.wait(budget.remaining_s())
            return not self._window.is_empty

    def has_work(self) -> bool:
        """Whether there is a document without a result."""
        with self._changed:
            return not self._window.is_answered

    def requests(self) -> Iterator[pb.ClassifyStreamRequest]:
        """The requests of the next call. It ends with the last result, since a document may have to go out again.

        It ends too where every document has a result and some have not left: the caller's thread, which waits for a
        reply, would not take them.
        """
        # Counted here and not by gRPC's thread, which may begin after this call is over.
        with self._changed:
            self._call += 1
            return self._requests(self._call)

    def _requests(self, call: int) -> Iterator[pb.ClassifyStreamRequest]:
        options = self._options
        while True:
            with self._changed:
                while (document := self._next(call)) is None:
                    if call != self._call or self._closed:
                        return
                    if self._is_done():
                        self._done_call = call
                        return
                    self._changed.wait(self._window.next_due_s(time.monotonic()))
            yield pb.ClassifyStreamRequest(document=document, options=options)
            options = None

    def answer(self, reply: pb.ClassifyStreamResponse) -> list[Result]:
        """Takes a reply; the results that are next in order."""
        with self._changed:
            self._window.answer(convert.result(reply.result), time.monotonic())
            return self.leave()

    def leave(self) -> list[Result]:
        """The results that are next in order."""
        with self._changed:
            results = list(self._window.leave())
            self._changed.notify_all()
        return results

    def restart(self) -> bool:
        """Ends the requests of a call that is over; whether it has answered everything there was, or that it took."""
        with self._changed:
            is_done = self._done_call == self._call
            self._call += 1
            self._window.restart()
            self._changed.notify_all()
            return is_done or self._window.is_answered

    def raise_input_error(self) -> None:
        """Raises what the caller's documents raised."""
        if self._input_error is not None:
            raise self._input_error

    def close(self) -> None:
        """Lets the other threads end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self, call: int) -> pb.Document | None:
        is_current = call == self._call and not self._closed
        return self._window.send(time.monotonic()) if is_current else None

    def _is_done(self) -> bool:
        return self._window.is_answered and (self._input_ended or not self._window.is_empty)
