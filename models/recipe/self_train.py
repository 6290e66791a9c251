"""Further training rows: what a trained model, or several together, say of the newspaper sections that have no label: the
surest half of what is said to be of each class, since one threshold for all would leave the hard classes out, and only
where the publisher's section does not contradict the topic. Writes `self_taught.npz` into the work folder, for
`train.py --self-taught`.

    python self_train.py
    python train.py --self-taught 1    once the teacher's checkpoint and weights are moved away
"""

import dataclasses
import math
from pathlib import Path

import numpy as np

from common import LABELS, SECTIONS, SHIPPED_TASKS
from measure import softmax
from readings import Reader, reader_arguments
from windows import SECTION_OF

BROAD = ("politics", "society")  # sections that stories of every topic are filed under


def main():
    parser = reader_arguments(__doc__)
    parser.add_argument("--teachers", type=Path, nargs="+", help="weights whose scores are averaged, in place of --weights")
    arguments = parser.parse_args()
    readers = [Reader(arguments, weights) for weights in arguments.teachers or [None]]
    answers = [reader.logits("sections") for reader in readers]
    scores = {task: np.mean([softmax(logits[task]) for logits in answers], axis=0) for task in SHIPPED_TASKS}
    reader = readers[0]
    taught = believed(reader.shard("sections"), scores, set(reader.shard("train").names))
    for task in SHIPPED_TASKS:
        counts = {label: int((taught.labels[task] == n).sum()) for n, label in enumerate(LABELS[task])}
        print(f"{task}, labels believed: {counts}")
    path = arguments.work / "self_taught.npz"
    taught.save(path.with_name("self_taught.tmp.npz"))
    path.with_name("self_taught.tmp.npz").replace(path)


def believed(shard, scores, labelled):
    """The documents, of one window each, that have a label which holds: not those with names in `labelled`, -1 where the
    model is unsure of the other task, and neither label where topic and section disagree."""
    sections = [SECTIONS[section] for section in shard.labels["section"]]
    topics = [LABELS["topic"][row.argmax()] for row in scores["topic"]]
    agrees = np.array([SECTION_OF.get(topic) == section or section in BROAD for topic, section in zip(topics, sections)])
    open_ones = agrees & np.array([name not in labelled for name in shard.names])
    labels = {task: surest_half(rows, open_ones) for task, rows in scores.items()}
    unlabelled = np.full(len(shard), -1, np.int8)
    held = np.flatnonzero((labels["topic"] >= 0) | (labels["sentiment"] >= 0))
    return rows_of(shard, held, labels | {"topic2": unlabelled, "section": unlabelled})


def surest_half(scores, open_ones):
    """The best label of the surest half of each label's rows among `open_ones`; -1 elsewhere."""
    best, confidence = scores.argmax(1), scores.max(1)
    labels = np.full(len(scores), -1, np.int8)
    for label in np.unique(best[open_ones]):
        rows = np.flatnonzero(open_ones & (best == label))
        kept = rows[np.argsort(-confidence[rows], kind="stable")][: math.ceil(len(rows) / 2)]
        labels[kept] = label
    return labels


def rows_of(shard, rows, labels):
    """These documents of a shard that has one window a document."""
    lengths = np.diff(shard.starts)[rows]
    return dataclasses.replace(
        shard,
        ids=np.concatenate([shard.window(row) for row in rows]),
        starts=np.concatenate([[0], lengths.cumsum()]),
        owners=np.arange(len(rows)),
        labels={name: values[rows] for name, values in labels.items()},
        **{name: getattr(shard, name)[rows] for name in ("titled", "names", "outlets")},
    )


if __name__ == "__main__":
    main()
