"""Measures the trained model on news: accuracy, F1, calibration, abstention, by outlet and by length.
Fits the temperatures and the abstention thresholds on the dev split. Writes `work/news.json` for export.py.

    python evaluate.py
"""

import json

import numpy as np

from common import LABELS, SHIPPED_TASKS, write_figures
from measure import (
    abstention,
    abstention_threshold,
    accuracy_and_f1,
    calibration_error,
    calibration_noise,
    class_table,
    confusion,
    fit_temperature,
    nll,
    reliability,
    risk_coverage,
    softmax,
)
from prepare import hard_cases
from readings import Reader, reader_arguments

SETS = ("dev", "test_saudi_lead", "test_saudi_full")
LENGTHS = (0, 200, 350, 500, 10_000)  # tokens of title and text
MIN_OUTLET_ROWS = 20
AGREEMENT = {
    "source": "two independent passes of the annotating model over 1,200 other documents; figures of the data's notes",
    "topic": 0.96,
    "sentiment": 0.95,
}


def main():
    parser = reader_arguments(__doc__)
    parser.add_argument("--dev-only", action="store_true", help="to choose between candidates: touch no test")
    arguments = parser.parse_args()
    reader = Reader(arguments)
    calibration = {task: calibrate(task, reader) for task in SHIPPED_TASKS}
    sets = ("dev",) if arguments.dev_only else SETS
    news = {
        "calibration": calibration,
        "annotator_agreement": AGREEMENT,
        "sets": {
            name: {task: measure(task, reader, name, calibration[task]) for task in SHIPPED_TASKS} for name in sets
        },
    }
    for name, tasks in news["sets"].items():
        for task, figures in tasks.items():
            print(
                f"{name} {task}: accuracy {figures['accuracy']:.3f}, macro-F1 {figures['macro_f1']:.3f}, "
                f"ECE {figures['ece']:.3f} (by chance {figures['ece_by_chance']['mean']:.3f}, uncalibrated "
                f"{figures['ece_uncalibrated']:.3f}), kept {figures['abstention']['kept_share']:.3f} "
                f"at {figures['abstention']['kept_accuracy']:.3f}"
            )
    if arguments.dev_only:
        return
    news["lengths"] = {task: by_length(task, reader) for task in SHIPPED_TASKS}
    news["hard_cases"] = hard_case_answers(reader, calibration)
    news["training"] = json.loads((arguments.work / "training.json").read_text())
    write_figures(arguments.work / "news.json", news, reader.weights)
    print(f"written: {arguments.work / 'news.json'}")


def calibrate(task, reader):
    """Everything that the bundle takes from the dev split: temperature and threshold."""
    shard, logits = reader.shard("dev"), reader.logits("dev")[task]
    temperature, how = fit_temperature(logits, shard.labels[task], shard.outlets)
    threshold = abstention_threshold(softmax(logits / temperature).max(1))
    return {"temperature": temperature, "fit": how, "abstain_below": threshold}


def measure(task, reader, name, calibration):
    """Every figure of one task on one set."""
    shard, logits = reader.shard(name), reader.logits(name)[task]
    truth, predicted, classes = shard.labels[task], logits.argmax(1), len(LABELS[task])
    calibrated = logits / calibration["temperature"]
    confidence, correct = softmax(calibrated).max(1), predicted == truth
    figures = accuracy_and_f1(truth, predicted, classes) | {
        "ece": calibration_error(confidence, correct),
        "ece_by_chance": calibration_noise(confidence),
        "ece_uncalibrated": calibration_error(softmax(logits).max(1), correct),
        "nll": nll(calibrated, truth),
        "abstention": abstention(confidence, correct, calibration["abstain_below"]),
        "classes": class_table(truth, predicted, LABELS[task]),
        "confusion": confusion(truth, predicted, classes),
        "reliability": reliability(confidence, correct),
        "risk_coverage": risk_coverage(confidence, correct),
        "outlets": {
            str(outlet): accuracy_and_f1(truth[rows], predicted[rows], classes)
            for outlet in np.unique(shard.outlets)
            if (rows := shard.outlets == outlet).sum() >= MIN_OUTLET_ROWS
        },
    }
    if task == "topic":
        figures["accuracy_either_topic"] = float((correct | (predicted == shard.labels["topic2"])).mean())
    return figures


def by_length(task, reader):
    """Whole articles of test_saudi by their length, read whole and by title and lead."""
    shard, truth = reader.shard("test_saudi_full"), reader.shard("test_saudi_full").labels[task]
    tokens = shard.tokens()
    predicted = {name: reader.logits(name)[task].argmax(1) for name in ("test_saudi_full", "test_saudi_lead")}
    table = []
    for low, high in zip(LENGTHS, LENGTHS[1:]):
        rows = (tokens >= low) & (tokens < high)
        accuracies = {name: float((labels[rows] == truth[rows]).mean()) for name, labels in predicted.items()}
        table.append({"tokens_from": low, "tokens_below": high, "rows": int(rows.sum()), "accuracy": accuracies})
    return table


def hard_case_answers(reader, calibration):
    """What the model says of each sentence of hard_cases.jsonl, and how sure it is."""
    answers = [{field: row[field] for field in ("id", "text", "why")} for row in hard_cases()]
    for task in SHIPPED_TASKS:
        truth = reader.shard("hard_cases").labels[task]
        scores = softmax(reader.logits("hard_cases")[task] / calibration[task]["temperature"])
        for answer, label, row in zip(answers, truth, scores, strict=True):
            predicted = row.argmax()
            answer[task] = {"due": LABELS[task][label], "said": LABELS[task][predicted], "score": float(row[predicted])}
    return answers


if __name__ == "__main__":
    main()
