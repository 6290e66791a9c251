"""Scores Parquet files on a Spark cluster, as `tasnif score` would.

    pip install 'tasnif[spark]'
    spark-submit spark_score.py s3a://news/articles/ s3a://news/scored/ --model /opt/tasnif/models/tasnif-base

Each executor's Python workers share one server on their node, which the first of them starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from tasnif import Client, Document, local_server
from tasnif.columns import columns, spark_schema


def score(
    frame: DataFrame, *, id_column: str = "id", text: str = "text", title: str | None = None, **arguments: Any
) -> DataFrame:
    """The ids, with the columns of `tasnif.columns`.

    Args:
        frame: With columns of ids, which may be of any type, and of texts.
        id_column: Names each row.
        text: The column of texts.
        title: That of titles, if there is one.
        arguments: Of `LocalServer`: `binary` and `model`, by their paths on the nodes.
    """
    tasks = ["topic", "sentiment"]

    def documents(batch: pd.DataFrame) -> Iterator[Document]:
        titles = batch[title] if title else [""] * len(batch)
        for row, (body, head) in enumerate(zip(batch[text], titles)):
            yield Document(body if isinstance(body, str) else "", head if isinstance(head, str) else "", id=str(row))

    def score_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        # A worker runs many tasks: it keeps its share in the server from its first to its end.
        with Client(local_server(**arguments).target) as client:
            for batch in batches:
                scored = columns(client.classify_stream(documents(batch)), tasks)
                yield pd.DataFrame({id_column: batch[id_column].to_numpy(), **scored})

    selected = frame.select(*[column for column in (id_column, text, title) if column])
    id_type = frame.schema[id_column].dataType.simpleString()
    return selected.mapInPandas(score_batches, f"`{id_column}` {id_type}, {spark_schema(tasks)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a Parquet file or a directory of them")
    parser.add_argument("output", help="a directory for the result")
    parser.add_argument("--id", default="id", help="the column of ids")
    parser.add_argument("--text", default="text", help="the column of texts")
    parser.add_argument("--title", help="the column of titles")
    parser.add_argument("--binary", help="tasnif on each node; TASNIF_BINARY, or the one on PATH")
    parser.add_argument("--model", help="the model's directory on each node")
    given = parser.parse_args(arguments)
    spark = SparkSession.builder.appName("tasnif").getOrCreate()
    frame = spark.read.parquet(given.source)
    scored = score(
        frame, id_column=given.id, text=given.text, title=given.title, binary=given.binary, model=given.model
    )
    scored.write.mode("error").parquet(given.output)


if __name__ == "__main__":
    main()
