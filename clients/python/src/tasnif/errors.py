"""What can go wrong, with what the server says of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class TasnifError(Exception):
    """The parent of every error of this package."""


class ServerStartError(TasnifError):
    """A local server that did not start; the message ends with the tail of its log."""


class CallError(TasnifError):
    """A call that failed, after whatever retries it had.

    Attributes:
        code: The gRPC status code.
        message: What the server says, in words.
        reason: The stable name of the error, such as ``OVERLOADED``; empty if the server did not answer.
        field: The field of the request that is at fault, if one is.
        metadata: The figures of the error: limits and actual values.
        retry_after_s: When to try again, if the server said so.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}{f' ({reason})' if reason else ''}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> Any:
        # As an exception of one argument it could be pickled, but not read again, which Ray and Spark do.
        facts: dict[str, Any] = dict(
            reason=self.reason, field=self.field, metadata=self.metadata, retry_after_s=self.retry_after_s
        )
        return functools.partial(type(self), **facts), (self.code, self.message)

    @classmethod
    def from_rpc(cls, error: Any) -> CallError:
        """Reads a failed call of grpc or grpc.aio: its status and the ``google.rpc`` details."""
        facts: dict[str, Any] = {}
        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS_KEY:
                facts = _facts(value)
        return cls(error.code(), error.details() or "", **facts)

    @property
    def is_retriable(self) -> bool:
        """Whether the same call may well succeed later.

        A client's own limits are RESOURCE_EXHAUSTED too, but without a time to come back.
        """
        return self.code is grpc.StatusCode.UNAVAILABLE or (
            self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and self.retry_after_s is not None
        )


def _facts(details: bytes) -> dict[str, Any]:
    """The ``google.rpc`` details of a status, as keyword arguments of `CallError`."""
    facts: dict[str, Any] = {}
    try:
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            info, retry, bad = (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.RetryInfo(),
                error_details_pb2.BadRequest(),
            )
            if detail.Unpack(info):
                facts.update(reason=info.reason, metadata=dict(info.metadata))
            elif detail.Unpack(retry):
                delay = retry.retry_delay
                facts["retry_after_s"] = max(0.0, delay.seconds + delay.nanos / 1e9)
            elif detail.Unpack(bad) and bad.field_violations:
                facts["field"] = bad.field_violations[0].field
    except ValueError:  # protobuf's DecodeError: details that are none do not hide the status
        return {}
    return facts
