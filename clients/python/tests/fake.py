"""A server that fails in ways that the real one does only under load: its script says how each call ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from tasnif.v1 import tasnif_pb2 as pb
from tasnif.v1 import tasnif_pb2_grpc

Handler = Callable[[Any, grpc.ServicerContext], Any]


class Fake(tasnif_pb2_grpc.ClassifierServicer):
    """Answers the n-th call with the n-th handler, and all later ones with the last."""

    def __init__(self, *handlers: Handler) -> None:
        self._handlers = handlers
        self.calls = 0
        self.metadata: list[dict[str, str]] = []

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        handler = self._handlers[min(self.calls, len(self._handlers) - 1)]
        self.calls += 1
        self.metadata.append(dict(context.invocation_metadata()))
        return handler(request, context)

    Classify = ClassifyBatch = ClassifyStream = _answer


@contextlib.contextmanager
def served(fake: Fake, directory: Path) -> Iterator[str]:
    """The target at which the fake answers."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    tasnif_pb2_grpc.add_ClassifierServicer_to_server(fake, server)
    target = f"unix:{directory / 'fake'}"
    server.add_insecure_port(target)
    server.start()
    try:
        yield target
    finally:
        server.stop(None).wait()


def refusing(code: grpc.StatusCode, reason: str, retry_after_s: float | None = None) -> Handler:
    """Fails as the real server does, with ErrorInfo and perhaps RetryInfo."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="tasnif", metadata={"limit": "1"})]
    if retry_after_s is not None:
        delay = duration_pb2.Duration(seconds=int(retry_after_s), nanos=int(retry_after_s % 1 * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))

    def refuse(_request: Any, context: grpc.ServicerContext) -> None:
        status = status_pb2.Status(code=code.value[0], message=reason.lower())
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
        context.abort(code, reason.lower())

    return refuse


def classify(request: pb.ClassifyRequest, _context: grpc.ServicerContext) -> pb.ClassifyResponse:
    """Answers well."""
    return pb.ClassifyResponse(classification=pb.Classification(id=request.document.id))


def item(document: pb.Document, code: grpc.StatusCode | None = None) -> pb.ItemResult:
    """The outcome of a document: an error, if there is a code."""
    if code is None:
        return pb.ItemResult(id=document.id, classification=pb.Classification(id=document.id))
    return pb.ItemResult(id=document.id, error=pb.ItemError(code=code.value[0], message="fake"))
