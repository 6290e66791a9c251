"""What every engine is given: documents as token ids, and how they are batched and padded for the engines that pad."""

import gzip
import json
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import NormalDist

import numpy as np
from tokenizers import Tokenizer

import texts

SEED = 20261124
SHORTEST, LONGEST = 10, 512  # tokens: the shortest titles, and one whole window
MEDIAN, SPREAD = 200, 0.9  # of the log-normal: titles, leads and articles together
BLOCK = 48  # documents; each block of a mixed work has the same spread of lengths
PADDED = (2, 4, 8, 16)  # documents a batch of mixed lengths
CALIBRATION = 128  # documents that NNCF is calibrated on


@dataclass(frozen=True)
class Work:
    """`documents` are token ids in the order in which they arrive. `kind`: latency (one by one, p50 and p99 count),
    uniform (all of one length) or mixed. `sizes`: documents a batch that peers are tried with. `sort`: they may sort
    the documents by length first."""

    name: str
    kind: str
    title: str
    documents: list
    sizes: tuple = (1,)
    sort: bool = False


@dataclass(frozen=True)
class Batch:
    """`ids` and `mask` [batch, tokens], i64, padded at the end. `tokens` are those that are not padding."""

    ids: np.ndarray
    mask: np.ndarray
    places: tuple  # of the rows in the documents
    tokens: int

    @property
    def padded(self):
        return self.tokens < self.ids.size


def make(bundle: Path, mixed_documents: int, checked: int, texts_file: Path | None):
    """All works, the documents for comparing labels and those for calibration."""
    source = Source(bundle, texts_file)
    lengths = mixed_lengths(mixed_documents)
    mixed = source.mixed(lengths)
    works = [Work(f"1x{n}", "latency", f"1 × {n}", source.exact(16, n)) for n in (32, 128, 512)]
    works.append(Work("16x128", "uniform", "16 × 128", source.exact(64, 128), (16,)))
    works.append(Work("mixed-unsorted", "mixed", "mixed lengths, as they arrive", mixed, PADDED))
    works.append(Work("mixed-sorted", "mixed", "mixed lengths, peers sort", mixed, PADDED, sort=True))
    works.append(Work("mixed-alone", "mixed", "mixed lengths, peers take one at a time", mixed))
    return works, source.mixed(mixed_lengths(checked)), source.mixed(mixed_lengths(CALIBRATION))


def tasks(bundle: Path):
    """(name, number of labels) of each task, in the order in which their logits lie side by side."""
    return [(task["name"], len(task["labels"])) for task in manifest(bundle)["tasks"]]


def pooling(bundle: Path):
    """How the last states become a row, `mean` or `cls`, for all tasks alike."""
    found = {task["pooling"] for task in manifest(bundle)["tasks"]}
    if len(found) > 1:
        raise SystemExit(f"{bundle}: tasks that pool in different ways are not compared here")
    return found.pop()


def manifest(bundle: Path):
    return json.loads((bundle / "tasnif.json").read_text(encoding="utf-8"))


def save(path: Path, works, checked):
    value = {"works": [asdict(work) for work in works], "checked": checked}
    path.write_text(json.dumps(value), encoding="utf-8")


def load(path: Path):
    """(works by name, documents for comparing labels)."""
    value = json.loads(path.read_text(encoding="utf-8"))
    return {work["name"]: Work(**work) for work in value["works"]}, value["checked"]


def mixed_lengths(count):
    """The quantiles of the log-normal, cut to the model's window, dealt out so that each block has the whole spread."""
    blocks = max(1, count // BLOCK)
    normal = NormalDist(np.log(MEDIAN), SPREAD)
    quantiles = [np.exp(normal.inv_cdf((n + 0.5) / count)) for n in range(count)]
    lengths = np.clip(np.round(quantiles), SHORTEST, LONGEST).astype(int)
    generator = np.random.default_rng(SEED)
    return [int(length) for block in range(blocks) for length in generator.permutation(lengths[block::blocks])]


class Source:
    """Documents of wanted lengths, from texts made here or from a file of real ones."""

    def __init__(self, bundle: Path, texts_file: Path | None):
        self.tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.generator = np.random.default_rng(SEED)
        self.first, self.last = self.tokenizer.encode("").ids
        self.real = self.read(texts_file) if texts_file else None
        self.next_real = cycle(self.real or [])

    def read(self, path: Path):
        """Ids of each text of JSON Lines with `title` (optional) and `text`, one window at most."""
        open_text = gzip.open if path.suffix == ".gz" else open
        with open_text(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in islice(lines, 20_000)]
        chosen = self.generator.permutation(len(rows))[:2_000]
        documents = []
        for row in (rows[n] for n in chosen):
            title = [*self.tokens(row["title"]), self.last] if row.get("title") else []
            tokens = [*title, *self.tokens(row["text"])]
            ids = [self.first, *tokens[: LONGEST - 2], self.last]
            if len(ids) >= SHORTEST:
                documents.append(ids)
        if not documents:
            raise SystemExit(f"{path}: no text of {SHORTEST} tokens or more")
        return documents

    def tokens(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def mixed(self, lengths):
        """Documents of these lengths; from a file, its own lengths as they come."""
        if self.real:
            return list(islice(self.next_real, len(lengths)))
        return [self.document(length) for length in lengths]

    def exact(self, count, length):
        return [self.document(length) for _ in range(count)]

    def document(self, length):
        """<s> text </s> of exactly `length` tokens."""
        tokens = []
        while len(tokens) < length - 2:
            text = texts.document(self.generator, sentences=length // 15 + 1)
            tokens += self.tokens(text) if not self.real else next(self.next_real)[1:-1]
        return [self.first, *tokens[: length - 2], self.last]


def batches(work: Work, size: int, pad_id: int):
    """Units of batches: a run ends only between two units, so that each has the same spread of lengths."""
    places = range(len(work.documents))
    if work.sort:  # the longest first: no stream is left with a long batch at the end
        groups = [sorted(places, key=lambda place: -len(work.documents[place]))]
    elif work.kind == "mixed":
        groups = [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]
    else:
        groups = [places[start : start + size] for start in range(0, len(places), size)]
    return [
        [pad(work.documents, group[start : start + size], pad_id) for start in range(0, len(group), size)]
        for group in groups
    ]


def pad(documents, places, pad_id):
    chosen = [documents[place] for place in places]
    longest = max(map(len, chosen))
    ids = np.full((len(chosen), longest), pad_id, np.int64)
    mask = np.zeros_like(ids)
    for row, document in enumerate(chosen):
        ids[row, : len(document)] = document
        mask[row, : len(document)] = 1
    return Batch(ids, mask, tuple(places), int(mask.sum()))
