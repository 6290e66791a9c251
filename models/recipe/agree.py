"""Whether the service answers as the recipe measured: whole articles of test_saudi through `tasnif classify` and
through PyTorch, logit by logit. Fails where they differ by more than TOLERANCE.

    python agree.py
"""

import json
import subprocess
from pathlib import Path

import numpy as np

from common import DEFAULT_SHARED, DEFAULT_TASNIF, HERE, LABELS, SHIPPED_TASKS, head_logits, pooled_windows
from prepare import build_shard, read
from readings import by_document, load_shipped, reader_arguments

TOLERANCE = 1e-3


def main():
    parser = reader_arguments(__doc__)
    parser.add_argument("--shared", type=Path, default=DEFAULT_SHARED, help="folder with data/")
    parser.add_argument("--tasnif", type=Path, default=DEFAULT_TASNIF, help="the tasnif binary")
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "tasnif-base")
    parser.add_argument("--rows", type=int, default=50)
    arguments = parser.parse_args()
    rows = list(read(arguments.shared / "data/news/test_saudi.jsonl.gz"))[: arguments.rows]
    expected = in_python(arguments, rows)
    largest, other_labels = 0.0, 0
    for n, row in enumerate(rows):
        for task, logits in in_rust(arguments, row).items():
            largest = max(largest, float(np.abs(logits - expected[task][n]).max()))
            other_labels += int(logits.argmax() != expected[task][n].argmax())
    print(f"{len(rows)} articles: largest difference of a logit {largest:.2e}, {other_labels} labels differ")
    if largest > TOLERANCE:
        raise SystemExit(1)


def in_python(arguments, rows):
    shard = build_shard(arguments.tasnif, arguments.bundle, "test_saudi", rows, ())
    model = load_shipped(arguments.bundle / "model.safetensors", arguments.bundle / "config.json")
    by_window = head_logits(model, pooled_windows(model, shard.windows()))
    return {task: by_document(shard, logits) for task, logits in by_window.items()}


def in_rust(arguments, row):
    command = [arguments.tasnif, "classify", "-", "--title", row["title"], "--model", arguments.bundle, "--logits"]
    command += ["--precision", "f32"]
    reply = subprocess.run(command, input=row["text"], capture_output=True, text=True, check=True, encoding="utf-8")
    answers = {}
    for answer in json.loads(reply.stdout)["classification"]["tasks"]:
        logits = {label["label"]: label["logit"] for label in answer["labels"]}
        answers[answer["task"]] = np.array([logits[label] for label in LABELS[answer["task"]]])
    return {task: answers[task] for task in SHIPPED_TASKS}


if __name__ == "__main__":
    main()
