"""An archive, and what `tasnif score` makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import BINARY, LIMIT_S, MODEL, article

# Both run the same windows by the same weights, but in batches of other documents. A document's scores do not depend on
# its batch, up to the order in which floats are added.
TOLERANCE = 1e-4
UNSCORABLE = {7: "", 23: None}


def write(path: Path, rows: int, files: int) -> None:
    """Parquet files of articles, of which two cannot be scored."""
    path.mkdir()
    numbers = list(range(rows))
    texts = [UNSCORABLE.get(number, article(number)) for number in numbers]
    table = pa.table({"id": [f"n{number}" for number in numbers], "title": ["خبر"] * rows, "text": texts})
    each = rows // files
    for file in range(files):
        pq.write_table(table.slice(file * each, each), path / f"{file:03}.parquet")


def expected(source: Path, output: Path) -> dict[str, dict[str, Any]]:
    """The rows of `tasnif score`, by id."""
    command = [str(BINARY), "score", str(source), "--output", str(output), "--model", str(MODEL)]
    subprocess.run([*command, "--id", "id", "--title", "title"], check=True, timeout=2 * LIMIT_S, capture_output=True)
    return {row["id"]: row for row in pq.read_table(output).to_pylist()}


def assert_equal(rows: list[dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """The rows are complete, each once, and say what `tasnif score` says."""
    unscorable = {f"n{number}" for number in UNSCORABLE}
    assert sorted(row["id"] for row in rows) == sorted({*expected, *unscorable})
    assert not unscorable & set(expected)
    for row in rows:
        if row["id"] in unscorable:
            assert row["topic"] is None and row["error"].startswith("INVALID_ARGUMENT: ")
            continue
        assert row.pop("error") is None
        reference = expected[row["id"]]
        for name, value in row.items():
            if name.endswith("_score"):
                assert value == pytest.approx(reference[name], abs=TOLERANCE), (row["id"], name)
            else:
                assert value == reference[name], (row["id"], name)
