"""Answers as columns of a table, named and typed as those of `tasnif score` (docs/archives.md).

For each task its label, ``<task>_score`` (six decimals) and ``<task>_abstained``, then ``tokens``, ``windows`` and
``truncated``. Documents that cannot be scored stay in the table: there these are null, and ``error`` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .messages import Model, Options, Result

if TYPE_CHECKING:
    import pyarrow as pa

_SPARK_TYPES = {"string": "string", "float32": "float", "bool": "boolean", "int64": "bigint"}


def task_names(models: Sequence[Model], options: Options | None = None) -> list[str]:
    """The tasks that classifying by these options answers, of what `Client.models` gives."""
    asked = options or Options()
    if asked.tasks:
        return list(asked.tasks)
    model = next((model for model in models if model.name == asked.model), models[0])
    return [task.name for task in model.tasks]


def types(tasks: Sequence[str]) -> dict[str, str]:
    """The columns in their order, and the names of their types in Arrow."""
    columns: dict[str, str] = {}
    for task in tasks:
        columns.update({task: "string", f"{task}_score": "float32", f"{task}_abstained": "bool"})
    return {**columns, "tokens": "int64", "windows": "int64", "truncated": "bool", "error": "string"}


def arrow_schema(tasks: Sequence[str]) -> pa.Schema:
    """The columns as an Arrow schema."""
    import pyarrow as pa  # noqa: PLC0415 (not needed for Spark's)

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in types(tasks).items()])


def spark_schema(tasks: Sequence[str]) -> str:
    """The columns as a schema in Spark's DDL."""
    return ", ".join(f"`{name}` {_SPARK_TYPES[kind]}" for name, kind in types(tasks).items())


def columns(results: Iterable[Result], tasks: Sequence[str]) -> dict[str, list[Any]]:
    """The values, by column."""
    table: dict[str, list[Any]] = {name: [] for name in types(tasks)}
    for result in results:
        for name, values in table.items():
            values.append(_row(result).get(name))
    return table


def _row(result: Result) -> dict[str, Any]:
    if result.classification is None:
        return {"error": f"{result.error.code.name}: {result.error.message}" if result.error else "no result"}
    usage = result.classification.usage
    row: dict[str, Any] = {"tokens": usage.tokens, "windows": usage.windows, "truncated": usage.truncated}
    for task in result.classification.tasks:
        row[task.task] = task.label
        row[f"{task.task}_score"] = round(task.score, 6)
        row[f"{task.task}_abstained"] = task.abstained
    return row
