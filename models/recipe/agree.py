"""Whether the service answers as the recipe measured, in f32: some whole articles of test_saudi through
`tasnif classify` and through PyTorch, logit by logit; then all of test_saudi, whole and title and lead, through
`tasnif score --evaluate`, whose accuracy and macro-F1 are to be those of the bundle's evaluation.json. Fails where
logits differ by more than TOLERANCE, or figures at all.

    python agree.py
"""

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from common import DEFAULT_SHARED, DEFAULT_TASNIF, HERE, LABELS, SHIPPED_TASKS, head_logits, pooled_windows
from prepare import build_shard, lead, read
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
    same = compare_figures(arguments)
    if largest > TOLERANCE or not same:
        raise SystemExit(1)


def compare_figures(arguments):
    """Whether the figures of `tasnif score` are those of evaluation.json."""
    evaluation, same = json.loads((arguments.bundle / "evaluation.json").read_text())["sets"], True
    rows = list(read(arguments.shared / "data/news/test_saudi.jsonl.gz"))
    for name, texts in (("test_saudi_full", rows), ("test_saudi_lead", map(lead, rows))):
        for found in scored(arguments, texts):
            expected = evaluation[name][found["task"]]
            pairs = (expected["accuracy"], found["accuracy"]), (expected["macro_f1"], found["macro_f1_frequent"])
            agree = all(abs(mine - theirs) < 1e-9 for mine, theirs in pairs)
            same = same and agree
            words = ", ".join(f"{mine:.6f} and {theirs:.6f}" for mine, theirs in pairs)
            print(f"{name} {found['task']}: accuracy, then macro-F1, here and by tasnif score: {words}")
    return same


def scored(arguments, rows):
    """What `tasnif score` finds of each task."""
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        texts.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        command = [arguments.tasnif, "score", texts, "--output", Path(folder) / "scored.jsonl", "--json", "--quiet"]
        command += ["--model", arguments.bundle, "--precision", "f32"]
        for task in SHIPPED_TASKS:
            command += ["--evaluate", f"{task}:{task}"]
        summary = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8")
    evaluations = json.loads(summary.stdout)["evaluations"]
    if [found["task"] for found in evaluations] != list(SHIPPED_TASKS):
        raise SystemExit(f"tasnif score evaluated {len(evaluations)} tasks")
    return evaluations


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
