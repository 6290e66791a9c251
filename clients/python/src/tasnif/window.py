"""The documents of a stream that have no result yet, and what is to be done with each.

A document goes from waiting to sent to answered, and leaves in the order in which it came. When the stream breaks,
those sent go back to waiting; so each has exactly one result, however often that happens. One that cannot be sent comes
as its result, and waits only for its turn to leave. Knows no grpc, no threads and no asyncio: `stream` and `aio_stream`
drive it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import TasnifError
from .messages import Result
from .retry import ITEM_RETRY_AFTER_S, Retry
from .v1 import tasnif_pb2 as pb


@dataclass
class _Entry:
    document: pb.Document
    not_before: float = 0.0
    failures: int = 0
    result: Result | None = None


class Window:
    """At most `limit` documents that have not left. Times are those of one monotonic clock, in seconds."""

    def __init__(self, limit: int, retry: Retry) -> None:
        if limit < 1:
            raise ValueError(f"in_flight is {limit}; it must be 1 or more")
        self._limit = limit
        self._retry = retry
        self._entries: deque[_Entry] = deque()
        self._waiting: deque[_Entry] = deque()
        self._later: list[_Entry] = []
        self._sent: deque[_Entry] = deque()

    @property
    def has_room(self) -> bool:
        """Whether another document may be added."""
        return len(self._entries) < self._limit

    @property
    def is_empty(self) -> bool:
        """Whether every document has left."""
        return not self._entries

    @property
    def is_answered(self) -> bool:
        """Whether no document is without a result."""
        return not (self._waiting or self._later or self._sent)

    def add(self, document: pb.Document | Result) -> None:
        """Takes a document in, or the result of one that is not to be sent; `has_room` must be true."""
        if isinstance(document, Result):
            self._entries.append(_Entry(pb.Document(), result=document))
            return
        entry = _Entry(document)
        self._entries.append(entry)
        self._waiting.append(entry)

    def send(self, now: float) -> pb.Document | None:
        """The next document to send, if one is due; it counts as sent."""
        due = next((entry for entry in self._later if entry.not_before <= now), None)
        if due is not None:
            self._later.remove(due)
        elif self._waiting:
            due = self._waiting.popleft()
        else:
            return None
        self._sent.append(due)
        return due.document

    def next_due_s(self, now: float) -> float | None:
        """Seconds until a document is due that is not yet; None if none will be."""
        return min((max(0.0, entry.not_before - now) for entry in self._later), default=None)

    def answer(self, result: Result, now: float) -> None:
        """Takes the outcome of the document that was sent first. What was refused for want of room waits again.

        Raises:
            TasnifError: The result is not that document's.
        """
        if not self._sent or self._sent[0].document.id != result.id:
            expected = repr(self._sent[0].document.id) if self._sent else "none"
            raise TasnifError(f"the server answered document {result.id!r}; expected {expected}")
        entry = self._sent.popleft()
        entry.failures += 1
        if result.error and result.error.is_retriable and entry.failures < self._retry.max_attempts:
            entry.not_before = now + self._retry.delay_s(entry.failures, ITEM_RETRY_AFTER_S)
            self._later.append(entry)
        else:
            entry.result = result

    def restart(self) -> None:
        """Puts what was sent and not answered in front of what is waiting: the stream is broken."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()

    def leave(self) -> Iterator[Result]:
        """The results that are next in order, which so make room."""
        while self._entries and (result := self._entries[0].result) is not None:
            self._entries.popleft()
            yield result
