"""Scoring of Ray Datasets: a class for `ray.data.Dataset.map_batches`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from .client import Client
from .columns import arrow_schema, columns, task_names
from .connection import Tls, Token
from .convert import MAX_MESSAGE_BYTES
from .local import LocalServer
from .messages import Document, Options
from .retry import Retry


class Classifier:
    """Classifies batches, by a server on the actor's own node that all actors of the node share.

        dataset.map_batches(Classifier, fn_constructor_kwargs={"keep": ["id"]}, batch_format="pyarrow", …)

    The server starts with a node's first actor and ends after its last, even if they are killed. It uses all cores of
    its node, or as many as ``server={"args": ["--threads", "8"]}`` says.

    Args:
        text: The column of texts.
        title: That of titles, if there is one.
        keep: Columns that the result has too.
        options: How to classify. Without, all tasks of the default model.
        in_flight: Documents of an actor that are on their way to the server.
        server: Arguments of `LocalServer`: `binary`, `model`, `args`, `start_timeout_s`. The paths are the node's.
        target: A running server instead, for all actors.
        token: See `Client`; for a server at `target`.
        tls: See `Client`; for a server at `target`.
        retry: See `Client`.
        max_message_bytes: See `Client`.

    The result has the columns of `keep`, and those of `tasnif.columns`. A document that cannot be scored, null or empty
    say, is in its `error`.
    """

    def __init__(
        self,
        *,
        text: str = "text",
        title: str | None = None,
        keep: Sequence[str] = (),
        options: Options | None = None,
        in_flight: int = 128,
        server: Mapping[str, Any] | None = None,
        target: str | None = None,
        token: Token = None,
        tls: Tls | None = None,
        retry: Retry | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._text = text
        self._title = title
        self._keep = list(keep)
        self._options = options
        self._in_flight = in_flight
        # Held for as long as the actor lives. Several nodes on one machine, in a test, are several scopes.
        self._server: LocalServer | None = None
        if target is None:
            node = ray.get_runtime_context().get_node_id()
            self._server = LocalServer(scope=f"ray-{node}", **(server or {}))
            target = self._server.target
        self._client = Client(target, token=token, tls=tls, retry=retry, max_message_bytes=max_message_bytes)
        self._tasks = task_names(self._client.models(), options)
        self._schema = arrow_schema(self._tasks)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A row for each row, in their order."""
        results = self._client.classify_stream(self._documents(batch), self._options, in_flight=self._in_flight)
        scored = pa.table(columns(results, self._tasks), schema=self._schema)
        for name in reversed(self._keep):
            scored = scored.add_column(0, batch.schema.field(name), batch.column(name))
        return scored

    def _documents(self, batch: pa.Table) -> Iterator[Document]:
        texts = self._strings(batch, self._text)
        titles = self._strings(batch, self._title) if self._title else [""] * batch.num_rows
        for row, (text, title) in enumerate(zip(texts, titles)):
            yield Document(text, title, id=str(row))

    @staticmethod
    def _strings(batch: pa.Table, name: str) -> list[str]:
        """The column's strings, with empty ones for null."""
        column = batch.column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise TypeError(f"column {name!r} is of type {column.type}; it must be of strings")
        return [value or "" for value in column.to_pylist()]
