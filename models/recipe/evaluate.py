"""Measures the trained model as it will ship (weights rounded to f16, computed in f32) and fits the temperatures.
Writes `evaluation.json` in the work folder; export.py copies it beside the weights and quotes it in the card.

    python evaluate.py
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from common import DEFAULT_WORK, LABELS, SHIPPED_TASKS, Classifier, Shard, document_logits, write_json

MIN_ROWS = 5  # macro-F1 leaves out the classes with fewer rows in the test
CALIBRATION_BINS = 15
# TF-IDF + linear SVM on 18.9k rows of news/train, title + first 330 characters, as the data's own notes give them.
FLOORS = {
    "source": "TF-IDF (words 1-2, characters 2-5) + linear SVM trained on news/train; figures of the data's notes",
    "test_saudi_lead": {"topic": {"accuracy": 0.81, "macro_f1": 0.68}, "sentiment": {"macro_f1": 0.67}},
}
AGREEMENT = {
    "source": "two independent passes of the annotating model over 1,200 other documents; figures of the data's notes",
    "topic": 0.96,
    "sentiment": 0.95,
}


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    work = arguments.work
    model = load_model(work)
    shards = {name: Shard.load(work / f"{name}.npz") for name in ("dev", "test_saudi_lead", "test_saudi_full")}
    logits = {}
    for name, shard in shards.items():
        logits[name] = document_logits(model, shard)
        print(f"{name}: {len(shard)} documents read", flush=True)

    # The temperature is chosen on the dev split and only measured on the tests.
    temperatures = {
        task: fit_temperature(logits["dev"][task], shards["dev"].labels[task]) for task in SHIPPED_TASKS
    }
    training = work / "training.json"
    evaluation = {
        "training": json.loads(training.read_text()) if training.exists() else None,
        "temperatures": temperatures,
        "floors": FLOORS,
        "annotator_agreement": AGREEMENT,
        "sets": {
            name: {task: measure(task, logits[name][task], shard, temperatures[task]) for task in SHIPPED_TASKS}
            for name, shard in shards.items()
        },
    }
    write_json(work / "evaluation.json", evaluation)
    for name, tasks in evaluation["sets"].items():
        for task, figures in tasks.items():
            print(
                f"{name} {task}: accuracy {figures['accuracy']:.3f}, macro-F1 {figures['macro_f1']:.3f}, "
                f"ECE {figures['ece']:.3f} ({figures['ece_uncalibrated']:.3f} before the temperature)"
            )
    print(f"written: {work / 'evaluation.json'}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder that train.py filled")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def load_model(work):
    model = Classifier(work / "bundle/config.json", SHIPPED_TASKS)
    tensors = {}
    for name, value in load_file(work / "model.safetensors").items():
        name = name if name.startswith("heads.") else f"encoder.{name}"
        tensors[name] = value.half().float()
    model.load_state_dict(tensors)
    return model.eval()


def fit_temperature(logits, truth):
    """The divisor of the logits that minimises the negative log-likelihood, by a grid in steps of 1 %."""
    grid = np.exp(np.arange(np.log(0.25), np.log(4.0), 0.01))
    return float(min(grid, key=lambda temperature: nll(logits / temperature, truth)))


def nll(logits, truth):
    return float(-log_softmax(logits)[np.arange(len(truth)), truth].mean())


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def measure(task, logits, shard, temperature):
    """Every figure of one task on one set."""
    truth, predicted = shard.labels[task], logits.argmax(1)
    labels = LABELS[task]
    rows = np.bincount(truth, minlength=len(labels))
    counted = [n for n in range(len(labels)) if rows[n] >= MIN_ROWS]
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=range(len(labels)), zero_division=0
    )
    figures = {
        "rows": len(shard),
        "accuracy": float((truth == predicted).mean()),
        "macro_f1": float(f1_score(truth, predicted, labels=counted, average="macro", zero_division=0)),
        "ece": expected_calibration_error(logits / temperature, truth),
        "ece_uncalibrated": expected_calibration_error(logits, truth),
        "nll": nll(logits / temperature, truth),
        "classes": {
            label: {
                "rows": int(rows[n]),
                "precision": float(precision[n]),
                "recall": float(recall[n]),
                "f1": float(f1[n]),
            }
            for n, label in enumerate(labels)
        },
        "confusion": confusion_matrix(truth, predicted, labels=range(len(labels))).tolist(),
    }
    if task == "topic":
        either = (predicted == truth) | (predicted == shard.labels["topic2"])
        figures["accuracy_either_topic"] = float(either.mean())
    return figures


def expected_calibration_error(logits, truth):
    """Mean gap between confidence and accuracy over equal-width bins of confidence, weighted by rows."""
    probabilities = np.exp(log_softmax(logits))
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs(confidence[bins == b].sum() - correct[bins == b].sum()) for b in range(CALIBRATION_BINS)]
    return float(sum(gaps) / len(truth))


if __name__ == "__main__":
    main()
