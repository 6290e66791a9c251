"""Client of Tasnif, which classifies Arabic news by topic and sentiment.

`Client` and `AsyncClient` call a server. `LocalServer` starts or finds one on this machine. `tasnif.ray` scores Ray
Datasets; `tasnif.columns` makes answers columns of a table.
"""

from .aio import AsyncClient
from .client import Client
from .connection import Tls
from .errors import CallError, ServerStartError, TasnifError
from .local import LocalServer, local_server
from .messages import (
    Classification,
    Document,
    Evidence,
    ItemError,
    Label,
    LabelScore,
    LongText,
    Model,
    Options,
    Priority,
    Result,
    Task,
    TaskResult,
    Timing,
    Token,
    Usage,
)
from .retry import Retry

__all__ = [
    "AsyncClient",
    "CallError",
    "Classification",
    "Client",
    "Document",
    "Evidence",
    "ItemError",
    "Label",
    "LabelScore",
    "LocalServer",
    "LongText",
    "Model",
    "Options",
    "Priority",
    "Result",
    "Retry",
    "ServerStartError",
    "Task",
    "TaskResult",
    "TasnifError",
    "Timing",
    "Tls",
    "Token",
    "Usage",
    "local_server",
]
