"""Scores Parquet files on a Ray cluster; what is in OUTPUT afterwards is what `tasnif score` would have written.

    pip install 'tasnif[ray]'
    python ray_score.py s3://news/articles/ s3://news/scored/ --title title --model /opt/tasnif/models/tasnif-base

It resumes by Ray Data's own checkpoints: with each file that it writes, the ids in it are noted in OUTPUT.checkpoint,
and the same command again reads the input without them. So ids must be unique, and an output belongs to one model:
score by another one into another output.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import ray
from ray.data.checkpoint import CheckpointConfig

from tasnif.ray import Classifier

DEFAULT_BLOCK_BYTES = 16 * 1024 * 1024


def score(
    source: str,
    output: str,
    *,
    id_column: str = "id",
    text: str = "text",
    title: str | None = None,
    actors: int = 1,
    cpus_per_actor: float = 1,
    batch_size: int = 256,
    block_bytes: int = DEFAULT_BLOCK_BYTES,
    server: dict[str, Any] | None = None,
    classifier: type[Classifier] = Classifier,
) -> None:
    """Scores what has not been scored yet.

    Args:
        source: A Parquet file or a directory of them.
        output: A directory for Parquet files, which all nodes can write to, as that beside it for the checkpoints.
        id_column: Names each row; in the output too.
        text: The column of texts.
        title: That of titles, if there is one.
        actors: Two for each node keep its server busy while one waits for its next batch.
        cpus_per_actor: What Ray sets aside for each: some less than half the cores of a node, so that reading and
            writing have room. What a lost node ran goes on once the others have room for its actors too, or there is
            a new node.
        batch_size: Documents that an actor has in hand.
        block_bytes: Of the input for one file of the output. That is what a lost node costs at most, an actor.
        server: See `Classifier`.
        classifier: What to run.
    """
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = block_bytes
    context.target_min_block_size = min(context.target_min_block_size, block_bytes)
    context.checkpoint_config = CheckpointConfig(
        id_column=id_column,
        checkpoint_path=f"{output.rstrip('/')}.checkpoint",
        # Kept, so that the command on a finished output finds nothing to do.
        delete_checkpoint_on_success=False,
    )
    columns = [column for column in (id_column, text, title) if column]
    (
        ray.data.read_parquet(source)
        .select_columns(columns)
        .map_batches(
            classifier,
            fn_constructor_kwargs={"text": text, "title": title, "keep": [id_column], "server": server},
            batch_format="pyarrow",
            batch_size=batch_size,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=cpus_per_actor,
        )
        .write_parquet(output)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a Parquet file or a directory of them")
    parser.add_argument("output", help="a directory for the result")
    parser.add_argument("--id", default="id", help="the column of ids, which are unique")
    parser.add_argument("--text", default="text", help="the column of texts")
    parser.add_argument("--title", help="the column of titles")
    parser.add_argument("--actors", type=int, default=2, help="two for each node")
    parser.add_argument("--cpus-per-actor", type=float, default=1, help="under half the cores of a node")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--binary", help="tasnif on each node; TASNIF_BINARY, or the one on PATH")
    parser.add_argument("--model", help="the model's directory on each node")
    parser.add_argument("--address", help="the Ray cluster; this machine alone by default")
    given = parser.parse_args(arguments)
    ray.init(address=given.address)
    score(
        given.source,
        given.output,
        id_column=given.id,
        text=given.text,
        title=given.title,
        actors=given.actors,
        cpus_per_actor=given.cpus_per_actor,
        batch_size=given.batch_size,
        server={"binary": given.binary, "model": given.model},
    )


if __name__ == "__main__":
    main()
