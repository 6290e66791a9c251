"""Shared data -> token shards, a file each, for training and for every measurement. Text is normalised, tokenised and
windowed by `tasnif prepare`, so that training reads exactly what serving reads.

    python prepare.py --shared ../../../shared --tasnif ../../target/release/tasnif
"""

import argparse
import gzip
import hashlib
import json
import random
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import numpy as np

from common import DEFAULT_SHARED, DEFAULT_TASNIF, DEFAULT_WORK, EOS, HERE, LABELS, Shard, tasnif_json, write_json
from noise import PERTURBATIONS, draw, perturb

DEV_SHARE = 0.07
LEAD_CHARACTERS = 330  # what the annotator of news/ read, after the title
MAX_ERROR_SHARE = 0.01
TRAIN_TOKENS, NOISY_TOKENS, SECTION_TOKENS, TWEET_TOKENS = 384, 160, 96, 96
SECTION_ROWS, KHALEEJ_TOKENS = 8_000, 128
SECTION_TESTS, LONG_ROWS = ("test_khaleej", "test_bbc_france24", "test_hespress"), 100
# Tokens of a window, and from the start of one to the next: less than a window holds after the longest title.
CUTS = ((512, 384), (256, 184), (128, 56))


def main():
    arguments = parse_arguments()
    bundle = write_bundle(arguments.shared / "backbone", arguments.work, arguments.profile)
    for name, (rows, options) in shards(arguments).items():
        if arguments.only and name not in arguments.only:
            continue
        shard = build_shard(arguments.tasnif, bundle, name, list(rows()), options)
        shard.save(arguments.work / f"{name}.npz")
        tokens = len(shard.ids) / len(shard)
        print(
            f"{name}: {len(shard)} documents, {len(shard.owners)} windows, {tokens:.0f} tokens a document", flush=True
        )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=DEFAULT_SHARED, help="folder with data/ and backbone/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    parser.add_argument("--tasnif", type=Path, default=DEFAULT_TASNIF, help="the tasnif binary")
    parser.add_argument("--stage1-rows", type=int, default=16_000, help="of sections and of tweets, at most")
    parser.add_argument("--profile", choices=["news", "folded"], default="news", help="form that text is read in")
    parser.add_argument("--only", nargs="+", metavar="SHARD", help="build these shards and no others")
    return parser.parse_args()


def shards(arguments):
    """Name -> (the function that reads its rows, options of `tasnif prepare`)."""
    data, stage1_rows = arguments.shared / "data", arguments.stage1_rows
    news, topic, sentiment = data / "news", data / "topic", data / "sentiment"
    table = {
        "train": (lambda: labelled(news, dev=False), head(TRAIN_TOKENS)),
        "train_noisy": (lambda: map(misspelt, labelled(news, dev=False)), head(NOISY_TOKENS)),
        # No first stage sees a document of the dev split.
        "sections": (lambda: sample(sections(topic / "train.jsonl.gz", dev=False), stage1_rows), head(SECTION_TOKENS)),
        "articles": (lambda: unlabelled(topic / "train.jsonl.gz"), head(TRAIN_TOKENS)),
        "tweets": (lambda: sample(tweets(sentiment / "train.jsonl.gz"), stage1_rows), head(TWEET_TOKENS)),
        "dev": (lambda: map(lead, labelled(news, dev=True)), head(TRAIN_TOKENS)),
        "test_saudi_lead": (lambda: map(lead, read(news / "test_saudi.jsonl.gz")), head(TRAIN_TOKENS)),
        "test_saudi_full": (lambda: read(news / "test_saudi.jsonl.gz"), ()),
        "hard_cases": (hard_cases, ()),
        "umsab_train": (lambda: tweets(sentiment / "umsab_train.jsonl.gz"), head(TWEET_TOKENS)),
        "test_umsab": (lambda: tweets(sentiment / "test_umsab.jsonl.gz"), head(TWEET_TOKENS)),
        "arsarcasm_train": (lambda: arsarcasm(sentiment / "train.jsonl.gz"), head(TWEET_TOKENS)),
        "test_arsarcasm_v2": (lambda: tweets(sentiment / "test_arsarcasm_v2.jsonl.gz"), head(TWEET_TOKENS)),
        "sections_khaleej": (lambda: sample(khaleej(topic), SECTION_ROWS), head(KHALEEJ_TOKENS)),
        "test_khaleej": (lambda: sections(topic / "test_khaleej.jsonl.gz"), head(KHALEEJ_TOKENS)),
    }
    for name in PERTURBATIONS:
        table[f"spelling_{name}"] = (partial(respelt, news / "test_saudi.jsonl.gz", name), head(TRAIN_TOKENS))
    # Whole articles of every kind of outlet, under several cuts into windows.
    for source in SECTION_TESTS:
        for window, stride in CUTS:
            rows = partial(long_articles, topic / f"{source}.jsonl.gz")
            table[f"long_{source}_{window}_{stride}"] = (rows, ("--window", window, "--stride", stride))
    return table


def head(tokens):
    return ("--head", tokens)


def labelled(news, dev):
    """The rows of news/train on one side of the cut."""
    return (row for row in read(news / "train.jsonl.gz") if is_dev(row["id"]) == dev)


def respelt(path, name):
    return (perturb(lead(row), [name], random_state(row)) for row in read(path))


def long_articles(path):
    return sample(sections(path), LONG_ROWS)


def write_bundle(backbone, work, profile):
    """The part of a bundle that `tasnif prepare` reads; export.py adds the weights."""
    bundle = work / "bundle"
    found = bundle / "tasnif.json"
    if found.exists() and (read_in := json.loads(found.read_text())["text"]["profile"]) != profile:
        raise SystemExit(f"{work} is of the profile {read_in}: name it, or another --work")
    bundle.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(backbone / name, bundle / name)
    write_json(bundle / "tasnif.json", tasnif_json(profile=profile))
    return bundle


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def hard_cases():
    """Sentences of our own that were written to be hard, with the labels that a reader would give."""
    return map(json.loads, (HERE / "hard_cases.jsonl").read_text(encoding="utf-8").splitlines())


def fraction(key):
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big") / 2**64


def is_dev(document_id):
    return fraction(f"dev:{document_id}") < DEV_SHARE


def random_state(row):
    return random.Random(f"noise:{row['id']}")


def sample(rows, count):
    """The `count` distinct rows with the smallest hashes: a random sample that does not move with the row order."""
    distinct = {row["id"]: row for row in rows}
    return sorted(distinct.values(), key=lambda row: fraction(f"sample:{row['id']}"))[:count]


def sections(path, dev=True):
    """Rows whose section maps to a class, without those of the dev split unless `dev`."""
    for row in read(path):
        if row.get("topic7") and (dev or not is_dev(row["id"])):
            yield {**row, "section": row["topic7"]}


def unlabelled(path):
    """Every article, those of news/train among them, but none of the dev split; without the publishers' topics, which have
    other names than ours."""
    kept = ("id", "title", "text")
    return ({name: row.get(name) for name in kept} for row in read(path) if not is_dev(row["id"]))


def khaleej(topic):
    return (row for row in sections(topic / "train.jsonl.gz", dev=False) if row["set"] == "sanad_khaleej")


def tweets(path):
    return ({**row, "id": f"tweet-{n}"} for n, row in enumerate(read(path)))


def arsarcasm(path):
    return (row for row in tweets(path) if "arsarcasm" in row["set"].lower())


def misspelt(row):
    return perturb(row, draw(random_state(row)), random_state(row))


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
        titled.append(reply["windows"][0].count(EOS) > 1)
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
    return Shard(
        ids=np.array(ids, np.int32),
        starts=starts,
        owners=np.array(owners, np.int32),
        titled=np.array(titled),
        names=np.array([str(row["id"]) for row in kept]),
        outlets=np.array([row.get("outlet", row.get("set", "")) for row in kept]),
        labels=labels,
    )


def link_shards(shards, work):
    """Gives another work folder the same shards, but for what self_train.py made of one model's answers."""
    work.mkdir(parents=True, exist_ok=True)
    links = {work / shard.name: shard.resolve() for shard in shards.glob("*.npz") if shard.name != "self_taught.npz"}
    for link, shard in links.items():
        if link.is_symlink() and link.resolve() != shard:
            raise SystemExit(f"{link} is of other shards: move it away, or name another --work")
    for link, shard in links.items():
        if not link.exists():
            link.symlink_to(shard)


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
