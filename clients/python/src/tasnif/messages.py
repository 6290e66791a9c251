"""Documents, options and answers as plain values. `proto/tasnif/v1/tasnif.proto` documents each field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import grpc

from .errors import CallError


class Priority(IntEnum):
    """Which lane a call takes; unspecified: interactive for single documents, bulk for streams."""

    UNSPECIFIED = 0
    INTERACTIVE = 1
    BULK = 2


class LongText(IntEnum):
    """What to do with a text of more than one window; unspecified: read it in windows."""

    UNSPECIFIED = 0
    WINDOWS = 1
    HEAD = 2
    REJECT = 3


@dataclass(frozen=True)
class Document:
    """What to classify. The id is the caller's own, and comes back with the answer."""

    text: str
    title: str = ""
    id: str = ""


@dataclass(frozen=True)
class Options:
    """How to classify. The defaults are the server's: the default model, every task and label."""

    model: str = ""
    tasks: Sequence[str] = ()
    top_k: int = 0
    min_score: float = 0.0
    priority: Priority = Priority.UNSPECIFIED
    long_text: LongText = LongText.UNSPECIFIED
    with_logits: bool = False
    evidence: int = 0


@dataclass(frozen=True)
class LabelScore:
    """One label's calibrated probability."""

    label: str
    name_ar: str
    name_en: str
    code: str
    score: float
    logit: float | None


@dataclass(frozen=True)
class Evidence:
    """A sentence of the text, ``text[start:end]``, and how far the label's score falls without it."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class TaskResult:
    """The answer of one task. `label` is the best one also where the model abstains."""

    task: str
    label: str
    score: float
    abstained: bool
    labels: tuple[LabelScore, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Usage:
    """What the model read of the document."""

    tokens: int
    windows: int
    truncated: bool
    cached: bool


@dataclass(frozen=True)
class Timing:
    """How long a call's parts took on the server, in microseconds."""

    tokenize_us: int
    queue_us: int
    inference_us: int
    total_us: int
    batch_tokens: int


@dataclass(frozen=True)
class Classification:
    """A document's answer. ``classification["topic"]`` is the task's result."""

    id: str
    model: str
    tasks: tuple[TaskResult, ...]
    usage: Usage
    timing: Timing | None = None
    """Of a single document only."""

    def __getitem__(self, task: str) -> TaskResult:
        for result in self.tasks:
            if result.task == task:
                return result
        raise KeyError(task)


@dataclass(frozen=True)
class ItemError:
    """Why one document of a batch or stream has no answer."""

    code: grpc.StatusCode
    message: str

    @property
    def is_retriable(self) -> bool:
        """Whether the same document may well be answered later."""
        return self.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


@dataclass(frozen=True)
class Result:
    """A document's outcome in a batch or stream: either a classification or an error."""

    id: str
    classification: Classification | None = None
    error: ItemError | None = None

    def unwrap(self) -> Classification:
        """The classification.

        Raises:
            CallError: The error, if it is one.
        """
        if self.classification is None:
            error = self.error or ItemError(grpc.StatusCode.INTERNAL, "the result is empty")
            raise CallError(error.code, error.message)
        return self.classification


@dataclass(frozen=True)
class Label:
    """A label that a task may give."""

    label: str
    name_ar: str
    name_en: str
    code: str


@dataclass(frozen=True)
class Task:
    """A task of a model, and the score under which it abstains."""

    name: str
    multi_label: bool
    abstain_below: float
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Model:
    """A model that is served."""

    name: str
    revision: str
    digest: str
    architecture: str
    precision: str
    device: str
    kernels: str
    max_window_tokens: int
    tasks: tuple[Task, ...]
    loaded_at_ms: int


@dataclass(frozen=True)
class Token:
    """A token, and where it is: ``text[start:end]`` of the text as sent."""

    id: int
    text: str
    start: int
    end: int
