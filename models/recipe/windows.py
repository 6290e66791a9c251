"""How to read a long article: measures cuts into windows and ways to join them, on whole articles of the section tests.
The 17 topics are mapped to the sections (SECTION_OF); no part of the model is trained on them. Writes
`work/windows.json`.

    python windows.py
"""

import numpy as np

from common import SECTIONS, TOPICS, write_figures
from measure import accuracy_and_f1, softmax
from prepare import CUTS, SECTION_TESTS
from readings import Reader, by_document, reader_arguments

SECTION_OF = {
    "politics": "politics",
    "conflict": "politics",
    "economy": "economy",
    "labour": "economy",
    "sport": "sports",
    "arts": "culture",
    "science_tech": "technology",
    "health": "health",
    "religion": "religion",
    "society": "society",
}


def main():
    arguments = reader_arguments(__doc__).parse_args()
    reader = Reader(arguments)
    table = []
    for window, stride in CUTS:
        rows = {name: measure(reader, f"long_{name}_{window}_{stride}") for name in SECTION_TESTS}
        for way in JOINS:
            figures = {name: by_way[way] for name, by_way in rows.items()}
            mean = float(np.mean([f["macro_f1"] for f in figures.values()]))
            table.append({"window": window, "stride": stride, "join": way, "mean_macro_f1": mean, "sets": figures})
            print(f"window {window}, stride {stride}, {way}: mean macro-F1 {mean:.3f}")
        result = {"section_of": SECTION_OF, "table": table}
        write_figures(arguments.work / "windows.json", result, reader.weights)


def measure(reader, name):
    """Figures of each way to join the windows of a set, over the sections that the set holds."""
    shard, rows = reader.shard(name), reader.window_logits(name)["topic"]
    truth = shard.labels["section"]
    held = np.unique(truth)
    figures = {}
    for way, join in JOINS.items():
        sections = section_scores(softmax(join(shard, rows)))
        predicted = held[sections[:, held].argmax(1)]
        figures[way] = accuracy_and_f1(truth, predicted, len(SECTIONS))
    return figures


def section_scores(topic_scores):
    scores = np.zeros((len(topic_scores), len(SECTIONS)))
    for n, (topic, *_) in enumerate(TOPICS):
        if topic in SECTION_OF:
            scores[:, SECTIONS.index(SECTION_OF[topic])] += topic_scores[:, n]
    return scores


def first_windows(shard):
    return np.concatenate([[True], shard.owners[1:] != shard.owners[:-1]])


def head(shard, rows):
    return rows[first_windows(shard)]


def mean(shard, rows):
    return by_document(shard, rows)


def head_twice(shard, rows):
    """The window with the title and the lead counts double."""
    return by_document(shard, rows, np.diff(shard.starts) * np.where(first_windows(shard), 2.0, 1.0))


def surest(shard, rows):
    """The window with the highest score decides."""
    confidence = softmax(rows).max(1)
    order = np.lexsort((-confidence, shard.owners))
    _, first = np.unique(shard.owners[order], return_index=True)
    return rows[order[first]]


def highest(shard, rows):
    """Each topic has the logit of the window where that is highest."""
    return np.maximum.reduceat(rows, np.flatnonzero(first_windows(shard)))


JOINS = {"head": head, "mean": mean, "head_twice": head_twice, "surest": surest, "highest": highest}


if __name__ == "__main__":
    main()
