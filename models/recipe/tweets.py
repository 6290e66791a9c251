"""Sentiment of tweets beside published figures: fine-tunes on the comparison's own training rows and reads its test.
Starts from the backbone, as the published models did; from the shipped encoder, which has seen some tweets with labels; or
from that after a stage on tweets of six sets (some are training rows of the set, none is of a test). Writes
`work/tweets.json`.

    python tweets.py --set umsab --start backbone
    python tweets.py --set all --start shipped          the stage on tweets of six sets, kept in a folder of its own
    python tweets.py --set umsab --dev 0.2 --lr 5e-5    chooses settings: reads no test, a share of the training rows instead
"""

import argparse
import json
import os
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from torch.nn import functional

from common import (
    DEFAULT_SHARED,
    DEFAULT_WORK,
    LABELS,
    Classifier,
    Shard,
    digest,
    head_logits,
    pad,
    pooled_windows,
    pooling_of,
    save_weights,
    write_figures,
)
from measure import accuracy_and_f1
from plans import bucketed, schedule
from train import has_bf16, load_start

SETS = {
    "umsab": ("umsab_train", "test_umsab", "macro-F1, arXiv 2104.12250: fastText 0.460, XLM-R base 0.636, XLM-T 0.677"),
    "arsarcasm_v2": (
        "arsarcasm_train",
        "test_arsarcasm_v2",
        "F1 of positive and negative, best of the shared task: 0.748",
    ),
    "all": ("tweets", None, None),
}


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    # The model whose card the figures are for, by which the stage on tweets that starts from it is named.
    weights = digest(arguments.work / "model.safetensors")
    stage = arguments.work / f"tweets-{weights}"
    starts = {"backbone": arguments.shared / "backbone", "shipped": arguments.work, "tweets": stage}
    start = starts[arguments.start] / "model.safetensors"
    tensors = load_file(start)
    made = arguments.shared / "backbone" if arguments.start == "backbone" else arguments.work / "bundle"
    model = Classifier(made / "config.json", ["sentiment"], pooling_of(start))
    load_start(model, {name: tensor for name, tensor in tensors.items() if "topic" not in name})
    train_name, test_name, published = SETS[arguments.set]
    shards = arguments.shards or arguments.work
    train = Shard.load(shards / f"{train_name}.npz")
    order = random.Random(f"{arguments.seed}:dev").sample(range(len(train)), len(train))
    held = round(arguments.dev * len(train))
    fine_tune(model, train, order[held:], "sentiment", arguments)
    if test_name is None:
        stage.mkdir(exist_ok=True)
        tensors = {name.removeprefix("encoder."): tensor for name, tensor in model.state_dict().items()}
        save_weights(tensors, stage / "model.safetensors", model.pooling)
    if held:
        print(f"dev, {arguments.set} from {arguments.start}: {figures(model, train, order[:held])}")
    elif test_name:
        test = Shard.load(shards / f"{test_name}.npz")
        result = figures(model, test, range(len(test)))
        result |= {"training_rows": len(train), "epochs": arguments.epochs, "published": published}
        print(f"{arguments.set} from {arguments.start}: {result}")
        path = arguments.work / "tweets.json"
        earlier = json.loads(path.read_text()) if path.exists() else {}
        results = earlier["figures"] if earlier.get("weights") == weights else {}
        write_figures(path, results | {f"{arguments.set}, from {arguments.start}": result}, weights)


def figures(model, shard, rows):
    truth = shard.labels["sentiment"][rows]
    predicted = head_logits(model, pooled_windows(model, [shard.window(n) for n in rows]))["sentiment"].argmax(1)
    polar = [LABELS["sentiment"].index(label) for label in ("negative", "positive")]
    f1_pn = float(f1_score(truth, predicted, labels=polar, average="macro"))
    return accuracy_and_f1(truth, predicted, 3) | {"f1_pn": f1_pn}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=DEFAULT_SHARED, help="folder with backbone/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder that prepare.py and train.py filled")
    parser.add_argument("--shards", type=Path, help="folder that prepare.py filled, where it is another: of another profile, say")
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--start", choices=["backbone", "shipped", "tweets"], default="backbone")
    fine_tuning_arguments(parser, epochs=4)
    parser.add_argument("--dev", type=float, default=0.0, help="share of the training rows to read instead of the test")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def fine_tuning_arguments(parser, epochs):
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=8e-5)
    parser.add_argument("--head-lr", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=17)


def fine_tune(model, shard, rows, task, arguments):
    """On those rows of the shard, by the labels of one task: a fixed number of epochs, none chosen by the test."""
    groups = [{"params": model.encoder.parameters(), "peak": arguments.lr}]
    groups.append({"params": model.heads.parameters(), "peak": arguments.head_lr})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    lengths, batches, bf16 = np.diff(shard.starts), [], has_bf16("cpu")
    random_state = random.Random(arguments.seed)
    for _ in range(arguments.epochs):
        order = random_state.sample(rows, len(rows))
        batches += bucketed(order, lengths.__getitem__, arguments.batch, random_state)
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(step, len(batches), hold=0)
        classes = torch.from_numpy(shard.labels[task][batch].astype(np.int64))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(*pad([shard.window(n) for n in batch]))[task]
        functional.cross_entropy(logits.float(), classes, label_smoothing=0.05).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 20 == 0:
            print(f"step {step + 1}/{len(batches)}", flush=True)


if __name__ == "__main__":
    main()
