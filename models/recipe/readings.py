"""What the trained model says about a shard, as it will ship: weights rounded to f16, computed in f32. Kept in the work
folder by the digests of weights and tokens, so that a measurement interrupted or added later reads nothing twice."""

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from common import DEFAULT_WORK, SHIPPED_TASKS, Classifier, Shard, digest, head_logits, pooled_windows, pooling_of


class Reader:
    """The model of `weights` and the shards beside it."""

    def __init__(self, arguments, weights=None):
        torch.set_num_threads(arguments.threads)
        self.shards = arguments.shards or arguments.work
        weights = weights or arguments.weights or arguments.work / "model.safetensors"
        self.weights = digest(weights)
        self.cache = arguments.work / "states" / self.weights
        self.model = load_shipped(weights, self.shards / "bundle/config.json")

    def shard(self, name):
        return Shard.load(self.shards / f"{name}.npz")

    def pooled(self, name):
        """The encoder's pooled states [windows, hidden]."""
        shard = self.shard(name)
        tokens = hashlib.sha256(shard.ids.tobytes() + shard.starts.tobytes()).hexdigest()
        path = self.cache / f"{tokens[:12]}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path.with_suffix(".tmp.npy"), pooled_windows(self.model, shard.windows()).numpy())
            path.with_suffix(".tmp.npy").replace(path)
            print(f"{name}: read", flush=True)
        return torch.from_numpy(np.load(path))

    def window_logits(self, name):
        """Logits [windows, labels] a task."""
        return head_logits(self.model, self.pooled(name))

    def logits(self, name):
        """Logits [documents, labels] a task: windows weighted by their tokens, as the server does it."""
        shard, rows = self.shard(name), self.window_logits(name)
        return {task: by_document(shard, values) for task, values in rows.items()}


def load_shipped(weights, config):
    model = Classifier(config, SHIPPED_TASKS, pooling_of(weights))
    tensors = load_file(weights)
    model.load_state_dict(
        {name if name.startswith("heads.") else f"encoder.{name}": t.half().float() for name, t in tensors.items()}
    )
    return model.eval()


def by_document(shard, rows, weights=None):
    """The weighted mean of each document's windows; by their tokens unless told otherwise."""
    weights = np.diff(shard.starts).astype(np.float64) if weights is None else weights
    sums = np.zeros((len(shard), rows.shape[1]))
    np.add.at(sums, shard.owners, rows * weights[:, None])
    return sums / np.bincount(shard.owners, weights, minlength=len(shard))[:, None]


def reader_arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder that train.py filled; results go there")
    parser.add_argument("--shards", type=Path, help="folder that prepare.py filled, where it is another")
    parser.add_argument("--weights", type=Path, help="another model.safetensors than the work folder's")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser
