"""The client for threads. `aio` has the one for asyncio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from . import connection, convert, stream
from .batch import Batch
from .connection import DEFAULT_TARGET, Tls
from .errors import CallError
from .messages import Classification, Document, Model, Options, Result, Token
from .retry import Budget, Retry
from .v1 import tasnif_pb2 as pb
from .v1 import tasnif_pb2_grpc

SERVICE = "tasnif.v1.Classifier"
"""The name by which health checks ask for the API."""


class Client:
    """A server, or several behind one name. Threads may share a client; a context manager that closes it.

    Args:
        target: ``http://HOST:PORT``, ``https://HOST:PORT``, ``unix:PATH``, or ``HOST:PORT`` (https if there is `tls`).
        token: A bearer token, or a function that gives the one to use now.
        tls: Files for TLS and mutual TLS.
        retry: How to try again.
        timeout_s: The time of a call with all its retries, where the call does not say. Streams have none.
        max_message_bytes: What the server is set to take (`server.max_message_bytes`). A document of a batch or stream
            that is larger is not sent and fails alone; the server would end the whole stream.

    A call raises `CallError` once it has failed for good: at once if the error would come again, else when its tries
    are spent or its time would be over before the next one. The methods' `timeout_s` sets the time of that call.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: connection.Token = None,
        tls: Tls | None = None,
        retry: Retry | None = None,
        timeout_s: float = 60.0,
        max_message_bytes: int = convert.MAX_MESSAGE_BYTES,
    ) -> None:
        self._channel = connection.open_channel(target, tls, grpc)
        self._stub: Any = tasnif_pb2_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]
        self._token = token
        self._retry = retry or Retry()
        self._timeout_s = timeout_s
        self._max_message_bytes = max_message_bytes

    def classify(
        self, document: Document | str, options: Options | None = None, *, timeout_s: float | None = None
    ) -> Classification:
        """Classifies one document, in the lane of interactive work."""
        request = pb.ClassifyRequest(
            document=convert.document_to_proto(document), options=convert.options_to_proto(options)
        )
        reply = self._call(self._stub.Classify, request, self._budget(timeout_s))
        return convert.classification(reply.classification, reply.timing)

    def classify_batch(
        self,
        documents: Sequence[Document | str],
        options: Options | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[Result]:
        """Classifies some documents in one call: up to 256, if the server has its default limit.

        A bad document fails alone, as the `error` of its result. Those that found no room are sent again.
        """
        batch, budget = Batch(documents, options, self._max_message_bytes), self._budget(timeout_s)
        while not batch.is_answered:
            try:
                response = self._call(self._stub.ClassifyBatch, batch.request(), budget)
            except CallError:
                if batch.is_begun:
                    break
                raise
            delay_s = batch.take(response, budget)
            if delay_s is None:
                break
            time.sleep(delay_s)
        return batch.results

    def classify_stream(
        self,
        documents: Iterable[Document | str],
        options: Options | None = None,
        *,
        in_flight: int = 128,
        timeout_s: float | None = None,
    ) -> Iterator[Result]:
        """Classifies any number of documents; yields a result for each, in their order.

        A bad document fails alone, as the `error` of its result. When the connection or the server goes, the stream
        goes on over a new one: what has no result yet is sent again, and nothing has two.

        Args:
            documents: Read by a thread of its own, at most `in_flight` ahead of the results. What it raises is raised
                after the results of what came before.
            options: For all of them.
            in_flight: Documents that are on their way. A server works on up to 64 of a stream by default.
            timeout_s: The time for the whole stream; none by default.
        """

        def open_call(requests: Iterator[pb.ClassifyStreamRequest], remaining_s: float | None) -> Any:
            headers = connection.metadata(self._token)
            return self._stub.ClassifyStream(requests, timeout=remaining_s, metadata=headers)

        budget = Budget(self._retry, timeout_s)
        return stream.classify_stream(
            open_call, documents, options, in_flight, self._max_message_bytes, self._retry, budget
        )

    def tokenize(self, document: Document | str, *, model: str = "", timeout_s: float | None = None) -> list[Token]:
        """The tokens that a model would read."""
        request = pb.TokenizeRequest(document=convert.document_to_proto(document), model=model)
        return convert.tokens(self._call(self._stub.Tokenize, request, self._budget(timeout_s)))

    def models(self, *, timeout_s: float | None = None) -> list[Model]:
        """What is served; the default first."""
        reply = self._call(self._stub.ListModels, pb.ListModelsRequest(), self._budget(timeout_s))
        return [convert.model(model) for model in reply.models]

    def wait_until_serving(self, timeout_s: float = 60.0) -> None:
        """Waits until the server is there and every model has run once.

        Raises:
            CallError: It is not so within the time: DEADLINE_EXCEEDED, or how the last health check failed.
        """
        budget = Budget(self._retry, timeout_s)
        watch = health_pb2_grpc.HealthStub(self._channel).Watch
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        headers = connection.metadata(self._token)
        while True:
            error = stream.ended_early()
            call = watch(request, timeout=budget.remaining_s(), wait_for_ready=True, metadata=headers)
            try:
                for reply in call:
                    if reply.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.RpcError as failed:
                error = CallError.from_rpc(failed)
            finally:
                call.cancel()
            time.sleep(budget.delay_s(error, is_retriable=error.is_retriable))

    def close(self) -> None:
        """Ends what is under way, and the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _budget(self, timeout_s: float | None) -> Budget:
        return Budget(self._retry, self._timeout_s if timeout_s is None else timeout_s)

    def _call(self, method: Any, request: Any, budget: Budget) -> Any:
        while True:
            try:
                headers = connection.metadata(self._token)
                return method(request, timeout=budget.remaining_s(), metadata=headers)
            except grpc.RpcError as failed:
                error = CallError.from_rpc(failed)
            time.sleep(budget.delay_s(error, is_retriable=error.is_retriable))
