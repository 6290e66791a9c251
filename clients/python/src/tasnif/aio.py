"""The client for asyncio: `Client`, method by method."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from . import aio_stream, connection, convert, stream
from .batch import Batch
from .client import SERVICE
from .connection import DEFAULT_TARGET, Tls
from .errors import CallError
from .messages import Classification, Document, Model, Options, Result, Token
from .retry import Budget, Retry
from .v1 import tasnif_pb2 as pb
from .v1 import tasnif_pb2_grpc


class AsyncClient:
    """A server, or several behind one name, for one event loop. An asynchronous context manager that closes it.

    Arguments and errors are those of `Client`. Make it where its event loop runs.
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
        self._channel = connection.open_channel(target, tls, grpc.aio)
        self._stub: Any = tasnif_pb2_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]
        self._token = token
        self._retry = retry or Retry()
        self._timeout_s = timeout_s
        self._max_message_bytes = max_message_bytes

    async def classify(
        self, document: Document | str, options: Options | None = None, *, timeout_s: float | None = None
    ) -> Classification:
        """See `Client.classify`."""
        request = pb.ClassifyRequest(
            document=convert.document_to_proto(document), options=convert.options_to_proto(options)
        )
        reply = await self._call(self._stub.Classify, request, self._budget(timeout_s))
        return convert.classification(reply.classification, reply.timing)

    async def classify_batch(
        self,
        documents: Sequence[Document | str],
        options: Options | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[Result]:
        """See `Client.classify_batch`."""
        batch, budget = Batch(documents, options, self._max_message_bytes), self._budget(timeout_s)
        while not batch.is_answered:
            try:
                response = await self._call(self._stub.ClassifyBatch, batch.request(), budget)
            except CallError:
                if batch.is_begun:
                    break
                raise
            delay_s = batch.take(response, budget)
            if delay_s is None:
                break
            await asyncio.sleep(delay_s)
        return batch.results

    def classify_stream(
        self,
        documents: aio_stream.Documents,
        options: Options | None = None,
        *,
        in_flight: int = 128,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Result]:
        """See `Client.classify_stream`.

        `documents` may be asynchronous; what is not must not block. Who stops before the end should close the
        iterator, with `contextlib.aclosing`.
        """

        def open_call(requests: AsyncIterator[pb.ClassifyStreamRequest], remaining_s: float | None) -> Any:
            headers = connection.metadata(self._token)
            return self._stub.ClassifyStream(requests, timeout=remaining_s, metadata=headers)

        budget = Budget(self._retry, timeout_s)
        return aio_stream.classify_stream(
            open_call, documents, options, in_flight, self._max_message_bytes, self._retry, budget
        )

    async def tokenize(
        self, document: Document | str, *, model: str = "", timeout_s: float | None = None
    ) -> list[Token]:
        """See `Client.tokenize`."""
        request = pb.TokenizeRequest(document=convert.document_to_proto(document), model=model)
        return convert.tokens(await self._call(self._stub.Tokenize, request, self._budget(timeout_s)))

    async def models(self, *, timeout_s: float | None = None) -> list[Model]:
        """See `Client.models`."""
        reply = await self._call(self._stub.ListModels, pb.ListModelsRequest(), self._budget(timeout_s))
        return [convert.model(model) for model in reply.models]

    async def wait_until_serving(self, timeout_s: float = 60.0) -> None:
        """See `Client.wait_until_serving`."""
        budget = Budget(self._retry, timeout_s)
        watch: Any = health_pb2_grpc.HealthStub(self._channel).Watch
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        headers = connection.metadata(self._token)
        while True:
            error = stream.ended_early()
            call = watch(request, timeout=budget.remaining_s(), wait_for_ready=True, metadata=headers)
            try:
                async for reply in call:
                    if reply.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.RpcError as failed:
                error = CallError.from_rpc(failed)
            finally:
                call.cancel()
            await asyncio.sleep(budget.delay_s(error, is_retriable=error.is_retriable))

    async def close(self) -> None:
        """Ends what is under way, and the connection."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _budget(self, timeout_s: float | None) -> Budget:
        return Budget(self._retry, self._timeout_s if timeout_s is None else timeout_s)

    async def _call(self, method: Any, request: Any, budget: Budget) -> Any:
        while True:
            try:
                headers = connection.metadata(self._token)
                return await method(request, timeout=budget.remaining_s(), metadata=headers)
            except grpc.RpcError as failed:
                error = CallError.from_rpc(failed)
            await asyncio.sleep(budget.delay_s(error, is_retriable=error.is_retriable))
