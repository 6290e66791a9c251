"""From this package's values to the messages of the API, and back."""

from __future__ import annotations

import re
import reprlib
from typing import Any

import grpc

from .errors import CallError
from .messages import (
    Classification,
    Document,
    Evidence,
    ItemError,
    Label,
    LabelScore,
    Model,
    Options,
    Result,
    Task,
    TaskResult,
    Timing,
    Token,
    Usage,
)
from .v1 import tasnif_pb2 as pb

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Bytes of a message that a server takes by default: its setting `server.max_message_bytes`."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_FIELDS = ("id", "title", "text")
_SURROGATE = re.compile("[\ud800-\udfff]")


def document_to_proto(document: Document | str) -> pb.Document:
    """A string is a document without title and id. None in a field is as good as nothing.

    Raises:
        CallError: INVALID_ARGUMENT: it is no document, or its `field` cannot be encoded.
    """
    if isinstance(document, str):
        document = Document(document)
    message = pb.Document()
    for field in _FIELDS:
        if not hasattr(document, field):
            raise _invalid("document", f"is {reprlib.repr(document)}; it must be a Document or a string")
        value = getattr(document, field)
        try:
            setattr(message, field, "" if value is None else value)
        except (TypeError, ValueError) as error:
            raise _invalid(f"document.{field}", _flaw(value)) from error
    return message


def document_or_result(
    document: Document | str, options: pb.Options | None, max_message_bytes: int
) -> pb.Document | Result:
    """A document of a batch or stream, or its result if it cannot be sent.

    The options count as bytes of its message, since any document may be a stream's first, which has them.
    """
    try:
        message = document_to_proto(document)
        _check_size(message, options, max_message_bytes)
    except CallError as error:
        return Result(getattr(document, "id", None) or "", error=ItemError(error.code, error.message))
    return message


def options_to_proto(options: Options | None) -> pb.Options | None:
    """None stands for the server's defaults."""
    if options is None:
        return None
    return pb.Options(
        model=options.model,
        tasks=options.tasks,
        top_k=options.top_k,
        min_score=options.min_score,
        priority=pb.Priority.Name(options.priority),
        long_text=pb.LongText.Name(options.long_text),
        with_logits=options.with_logits,
        evidence=options.evidence,
    )


def classification(message: pb.Classification, timing: pb.Timing | None = None) -> Classification:
    """The answer of a document."""
    usage = message.usage
    return Classification(
        id=message.id,
        model=message.model,
        tasks=tuple(_task_result(task) for task in message.tasks),
        usage=Usage(usage.tokens, usage.windows, usage.truncated, usage.cached),
        timing=None
        if timing is None
        else Timing(timing.tokenize_us, timing.queue_us, timing.inference_us, timing.total_us, timing.batch_tokens),
    )


def result(message: pb.ItemResult) -> Result:
    """The outcome of a document in a batch or stream."""
    if message.WhichOneof("outcome") == "classification":
        return Result(message.id, classification=classification(message.classification))
    code = _CODES.get(message.error.code, grpc.StatusCode.UNKNOWN)
    return Result(message.id, error=ItemError(code, message.error.message))


def model(message: pb.Model) -> Model:
    """What a model is."""
    return Model(
        name=message.name,
        revision=message.revision,
        digest=message.digest,
        architecture=message.architecture,
        precision=message.precision,
        device=message.device,
        kernels=message.kernels,
        max_window_tokens=message.max_window_tokens,
        tasks=tuple(
            Task(
                name=task.name,
                multi_label=task.multi_label,
                abstain_below=task.abstain_below,
                labels=tuple(Label(entry.label, entry.name_ar, entry.name_en, entry.code) for entry in task.labels),
            )
            for task in message.tasks
        ),
        loaded_at_ms=message.loaded_at_ms,
    )


def tokens(message: pb.TokenizeResponse) -> list[Token]:
    """The tokens of a document."""
    return [Token(token.id, token.text, token.start, token.end) for token in message.tokens]


def _invalid(field: str, flaw: str) -> CallError:
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, f"{field} {flaw}", field=field)


def _flaw(value: Any) -> str:
    """Why it cannot be encoded, with a part of it that can: a lone surrogate is shown as ASCII."""
    if isinstance(value, str) and (lone := _SURROGATE.search(value)):
        return f"has {lone[0]!r} at {lone.start()}, a lone surrogate; it must be text that UTF-8 can encode"
    return f"is {reprlib.repr(value)}; it must be a string"


def _check_size(document: pb.Document, options: pb.Options | None, max_message_bytes: int) -> None:
    size = pb.ClassifyStreamRequest(document=document, options=options).ByteSize()
    if size > max_message_bytes:
        longest = max(_FIELDS, key=lambda field: len(getattr(document, field)))
        raise _invalid(
            f"document.{longest}",
            f"makes a message of {size} bytes; the limit, max_message_bytes, is {max_message_bytes}",
        )


def _task_result(message: pb.TaskResult) -> TaskResult:
    return TaskResult(
        task=message.task,
        label=message.label,
        score=message.score,
        abstained=message.abstained,
        labels=tuple(
            LabelScore(
                entry.label,
                entry.name_ar,
                entry.name_en,
                entry.code,
                entry.score,
                entry.logit if entry.HasField("logit") else None,
            )
            for entry in message.labels
        ),
        evidence=tuple(Evidence(entry.start, entry.end, entry.weight) for entry in message.evidence),
    )
