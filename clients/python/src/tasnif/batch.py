"""`classify_batch`: the documents of one call, of which those that found no room are asked for again.

Those that cannot be sent are never asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import convert
from .errors import CallError, TasnifError
from .messages import Document, Options, Result
from .retry import ITEM_RETRY_AFTER_S, Budget
from .v1 import tasnif_pb2 as pb


class Batch:
    """Documents and the results that they have so far."""

    def __init__(self, documents: Sequence[Document | str], options: Options | None, max_message_bytes: int) -> None:
        self._options = convert.options_to_proto(options)
        self._documents: dict[int, pb.Document] = {}
        self._results: dict[int, Result] = {}
        for index, document in enumerate(documents):
            encoded = convert.document_or_result(document, self._options, max_message_bytes)
            if isinstance(encoded, Result):
                self._results[index] = encoded
            else:
                self._documents[index] = encoded
        self._open = list(self._documents)
        self._is_begun = False

    @property
    def is_answered(self) -> bool:
        """Whether there is nothing to ask for. A batch of nothing is for the server to refuse."""
        return bool(self._results) and not self._open

    @property
    def is_begun(self) -> bool:
        """Whether a call has been answered: then each document has a result, whatever becomes of the next call."""
        return self._is_begun

    @property
    def results(self) -> list[Result]:
        """In the order of the documents."""
        return [self._results[index] for index in sorted(self._results)]

    def request(self) -> pb.ClassifyBatchRequest:
        """What to ask for next."""
        return pb.ClassifyBatchRequest(
            documents=[self._documents[index] for index in self._open], options=self._options
        )

    def take(self, response: pb.ClassifyBatchResponse, budget: Budget) -> float | None:
        """Takes the answer to `request`; the seconds to wait before the next one, or None if there is none."""
        if len(response.results) != len(self._open):
            raise TasnifError(f"the server answered {len(response.results)} documents of {len(self._open)}")
        answered = dict(zip(self._open, map(convert.result, response.results)))
        self._results.update(answered)
        self._is_begun = True
        self._open = [index for index, result in answered.items() if result.error and result.error.is_retriable]
        if not self._open:
            return None
        error = answered[self._open[0]].error
        assert error is not None
        refusal = CallError(error.code, error.message, retry_after_s=ITEM_RETRY_AFTER_S)
        try:
            return budget.delay_s(refusal, is_retriable=True)
        except CallError:
            return None  # The errors are the results.
