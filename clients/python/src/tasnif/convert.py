"""From this package's values to the messages of the API, and back."""

from __future__ import annotations

import grpc

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

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def document_to_proto(document: Document | str) -> pb.Document:
    """A string is a document without title and id."""
    if isinstance(document, str):
        return pb.Document(text=document)
    return pb.Document(id=document.id, title=document.title, text=document.text)


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
