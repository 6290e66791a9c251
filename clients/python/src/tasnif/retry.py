"""When a failed call is worth another try, and when that is."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import grpc

from .errors import CallError

ITEM_RETRY_AFTER_S = 1.0
"""When to send a document of a batch or stream again that was refused for want of room (docs/api.md)."""


@dataclass(frozen=True)
class Retry:
    """How to try again what is UNAVAILABLE, or RESOURCE_EXHAUSTED with a time to come back.

    Every call of the API may be repeated: it changes nothing on the server.

    Attributes:
        max_attempts: Tries of a call, the first included. For a stream: tries in a row without a new result.
        initial_backoff_s: The wait after the first failure. Each later one is `multiplier` times as long.
        max_backoff_s: The longest wait, unless the server asks for more in its RetryInfo.
        multiplier: See `initial_backoff_s`.
        jitter: The share of a wait by which it is made longer at random, so that clients do not come back together.
    """

    max_attempts: int = 10
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 10.0
    multiplier: float = 2.0
    jitter: float = 0.25

    def delay_s(self, failures: int, retry_after_s: float | None) -> float:
        """The wait after so many failures, 1 or more; never less than what the server asked for."""
        try:
            backoff_s = min(self.max_backoff_s, self.initial_backoff_s * self.multiplier ** (failures - 1))
        except OverflowError:
            backoff_s = self.max_backoff_s
        return max(backoff_s, retry_after_s or 0.0) * (1 + self.jitter * random.random())


class Budget:
    """The tries and the time that are left to one call."""

    def __init__(self, retry: Retry, timeout_s: float | None) -> None:
        self._retry = retry
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._failures = 0

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, 0 or more; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raises DEADLINE_EXCEEDED once the deadline is there."""
        if self.remaining_s() == 0:
            raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the answer was there")

    def succeeded(self) -> None:
        """Forgets earlier failures: a stream has got on."""
        self._failures = 0

    def delay_s(self, error: CallError, *, is_retriable: bool) -> float:
        """How long to wait before the next try.

        Raises:
            CallError: `error` itself, if it will not go away, or no try or not enough time is left.
        """
        self._failures += 1
        if not is_retriable or self._failures >= self._retry.max_attempts:
            raise error
        delay_s = self._retry.delay_s(self._failures, error.retry_after_s)
        remaining_s = self.remaining_s()
        if remaining_s is not None and delay_s >= remaining_s:
            raise error
        return delay_s
