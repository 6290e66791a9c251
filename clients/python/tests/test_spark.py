"""The Spark example against `tasnif score`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import archive
import pyarrow.parquet as pq
import pytest
from conftest import BINARY, MODEL, ROOT

pytest.importorskip("pyspark")

sys.path.insert(0, str(ROOT / "clients/python/examples"))
import spark_score

pytestmark = pytest.mark.timeout(240)


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, and there is none")
def test_a_spark_job_is_complete_and_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import SparkSession  # noqa: PLC0415 (starts nothing yet, but warns without Java)

    source, output = tmp_path / "in", tmp_path / "out"
    archive.write(source, 120, 4)
    expected = archive.expected(source, tmp_path / "reference.parquet")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        arguments = ["--title", "title", "--binary", str(BINARY), "--model", str(MODEL)]
        spark_score.main([str(source), str(output), *arguments])
    finally:
        session.stop()
    archive.assert_equal(pq.read_table(output).to_pylist(), expected)
