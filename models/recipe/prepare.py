"""Shared data -> token shards. Text is normalised, tokenised and windowed by `tasnif prepare`, so that training
reads exactly what serving reads; nothing here looks inside a text.

    python prepare.py --shared ../../../shared --tasnif ../../target/release/tasnif
"""

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np

from common import DEFAULT_SHARED, DEFAULT_TASNIF, DEFAULT_WORK, LABELS, Shard, tasnif_json, write_json

DEV_SHARE = 0.07
LEAD_CHARACTERS = 330  # what the annotator of news/ read, after the title
MAX_ERROR_SHARE = 0.01
TRAIN_TOKENS, SECTION_TOKENS, TWEET_TOKENS = 384, 96, 96


def main():
    arguments = parse_arguments()
    data, work = arguments.shared / "data", arguments.work
    bundle = write_bundle(arguments.shared / "backbone", work)

    def tokenise(name, rows, *options):
        shard = build_shard(arguments.tasnif, bundle, name, rows, options)
        shard.save(work / f"{name}.npz")
        tokens = len(shard.ids) / len(shard)
        print(f"{name}: {len(shard)} documents, {len(shard.owners)} windows, {tokens:.0f} tokens a document")

    news = list(read(data / "news/train.jsonl.gz"))
    tokenise("train", [row for row in news if not is_dev(row["id"])], "--head", TRAIN_TOKENS)
    tokenise("dev", [lead(row) for row in news if is_dev(row["id"])], "--head", TRAIN_TOKENS)
    saudi = list(read(data / "news/test_saudi.jsonl.gz"))
    tokenise("test_saudi_lead", [lead(row) for row in saudi], "--head", TRAIN_TOKENS)
    tokenise("test_saudi_full", saudi)

    # The first stage sees a sample, never a document of the dev split.
    sections = [row for row in read(data / "topic/train.jsonl.gz") if row.get("topic7") and not is_dev(row["id"])]
    sections = sample(sections, arguments.stage1_rows, key=lambda row: row["id"])
    tokenise("sections", [{**row, "section": row["topic7"]} for row in sections], "--head", SECTION_TOKENS)
    tweets = [{**row, "id": f"tweet-{n}"} for n, row in enumerate(read(data / "sentiment/train.jsonl.gz"))]
    tweets = sample(tweets, arguments.stage1_rows, key=lambda row: row["id"])
    tokenise("tweets", tweets, "--head", TWEET_TOKENS)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=DEFAULT_SHARED, help="folder with data/ and backbone/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    parser.add_argument("--tasnif", type=Path, default=DEFAULT_TASNIF, help="the tasnif binary")
    parser.add_argument("--stage1-rows", type=int, default=16_000, help="rows of each first-stage source, at most")
    return parser.parse_args()


def write_bundle(backbone, work):
    """The part of a bundle that `tasnif prepare` reads; export.py adds the weights."""
    bundle = work / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(backbone / name, bundle / name)
    write_json(bundle / "tasnif.json", tasnif_json({}))
    return bundle


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def fraction(key):
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big") / 2**64


def is_dev(document_id):
    return fraction(f"dev:{document_id}") < DEV_SHARE


def sample(rows, count, key):
    """The `count` distinct rows with the smallest hashes: a random sample that does not move with the row order."""
    distinct = {key(row): row for row in rows}
    return sorted(distinct.values(), key=lambda row: fraction(f"sample:{key(row)}"))[:count]


def lead(row):
    return {**row, "text": row["text"][:LEAD_CHARACTERS]}


def build_shard(tasnif, bundle, name, rows, options):
    ids, lengths, owners, titled, kept, errors = [], [], [], [], [], []
    for row, reply in zip(rows, run_prepare(tasnif, bundle, rows, options), strict=True):
        if str(reply.get("id")) != str(row["id"]):
            raise SystemExit(f"{name}: tasnif prepare answered {reply.get('id')!r} where {row['id']!r} was due")
        if "error" in reply:
            errors.append(f"{row['id']}: {reply['error']}")
            continue
        for window in reply["windows"]:
            ids.extend(window)
            lengths.append(len(window))
            owners.append(len(kept))
        titled.append(bool(row.get("title")))
        kept.append(row)
    if errors:
        print(f"{name}: {len(errors)} rows without tokens, the first: {errors[0]}")
    if len(errors) > MAX_ERROR_SHARE * len(rows):
        raise SystemExit(f"{name}: {len(errors)} of {len(rows)} rows failed; the limit is {MAX_ERROR_SHARE:.0%}")
    labels = {}
    for field, classes in {**LABELS, "topic2": LABELS["topic"]}.items():
        index = {label: n for n, label in enumerate(classes)}
        labels[field] = np.array([index[row[field]] if row.get(field) else -1 for row in kept], np.int8)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Shard(np.array(ids, np.int32), starts, np.array(owners, np.int32), np.array(titled), labels)


def run_prepare(tasnif, bundle, rows, options):
    """One reply a row, in order, from the binary run as a filter."""
    command = [str(tasnif), "prepare", "--model", str(bundle), *map(str, options)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def feed():
        try:
            with process.stdin as pipe:
                for row in rows:
                    document = {field: row[field] for field in ("id", "title", "text") if row.get(field)}
                    pipe.write(json.dumps(document, ensure_ascii=False) + "\n")
        except BrokenPipeError:
            pass  # the filter ended early: its exit status, below, says why

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    for line in process.stdout:
        yield json.loads(line)
    feeder.join()
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)} exited with status {process.returncode}")


if __name__ == "__main__":
    main()
