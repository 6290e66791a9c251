"""Further training rows: what a trained model, or several together, say of the newspaper sections, kept where they are
sure and the publisher's section does not contradict the topic. Writes `self_taught.npz` into the work folder, for
`train.py --self-taught`.

    python self_train.py
    python train.py --self-taught 1    once the teacher's checkpoint and weights are moved away
"""

import dataclasses
from pathlib import Path

import numpy as np

from common import LABELS, SECTIONS, SHIPPED_TASKS
from measure import softmax
from readings import Reader, reader_arguments
from windows import SECTION_OF

SURE = {"topic": 0.8, "sentiment": 0.7}  # the least score that is believed
BROAD = ("politics", "society")  # sections that stories of every topic are filed under


def main():
    parser = reader_arguments(__doc__)
    parser.add_argument("--teachers", type=Path, nargs="+", help="weights whose scores are averaged, in place of --weights")
    arguments = parser.parse_args()
    readers = [Reader(arguments, weights) for weights in arguments.teachers or [None]]
    answers = [reader.logits("sections") for reader in readers]
    scores = {task: np.mean([softmax(logits[task]) for logits in answers], axis=0) for task in SHIPPED_TASKS}
    reader = readers[0]
    taught = believed(reader.shard("sections"), scores)
    for task in SHIPPED_TASKS:
        print(f"{task}: {(taught.labels[task] >= 0).sum()} labels believed, of {len(taught)} documents that have one")
    taught.save(reader.shards / "self_taught.npz")


def believed(shard, scores):
    """The documents of one window each that have a label which holds; -1 where the model is unsure of the other task, and
    neither label where topic and section disagree."""
    sections = [SECTIONS[section] for section in shard.labels["section"]]
    topics = [LABELS["topic"][row.argmax()] for row in scores["topic"]]
    agrees = np.array([SECTION_OF.get(topic) == section or section in BROAD for topic, section in zip(topics, sections)])
    labels = {
        task: np.where(agrees & (rows.max(1) >= SURE[task]), rows.argmax(1), -1).astype(np.int8)
        for task, rows in scores.items()
    }
    unlabelled = np.full(len(shard), -1, np.int8)
    held = np.flatnonzero((labels["topic"] >= 0) | (labels["sentiment"] >= 0))
    return rows_of(shard, held, labels | {"topic2": unlabelled, "section": unlabelled})


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
