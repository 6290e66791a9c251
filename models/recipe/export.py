"""Work folder -> shipped bundle: config, tokenizer, f16 weights, tasnif.json, evaluation.json, pictures and model card.

python export.py --out ../tasnif-base --revision DATE
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

import card
import pictures
from common import DEFAULT_WORK, digest, pooling_of, save_weights, tasnif_json, write_json

# What each measuring script leaves in the work folder: only the first is needed.
OF_THE_WEIGHTS = ("news", "spelling", "windows", "transfer", "tweets")
OF_THE_DATA = ("floors", "learning_curve")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder that evaluate.py filled")
    parser.add_argument("--shards", type=Path, help="folder that prepare.py filled, where it is another")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--revision", required=True, help="of the bundle: a date")
    parser.add_argument("--keep-weights", action="store_true", help="the weights at --out stay; the rest is renewed")
    arguments = parser.parse_args()
    work, out = arguments.work, arguments.out
    evaluation = read_parts(work)
    out.mkdir(parents=True, exist_ok=True)
    source = (arguments.shards or work) / "bundle"
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(source / name, out / name)
    if not arguments.keep_weights:
        write_weights(work, out)
    write_json(out / "evaluation.json", evaluation)
    write_json(out / "tasnif.json", manifest(arguments, source, evaluation))
    made = pictures.draw(evaluation, out / "pictures")
    (out / "README.md").write_text(card.text(evaluation, out), encoding="utf-8")
    print(f"{out}: {', '.join(made)}; {(out / 'model.safetensors').stat().st_size / 1e6:.1f} MB of weights")


def manifest(arguments, source, evaluation):
    """Text is read as it was prepared. What `tasnif verify --record` has written of the same weights stays."""
    pooling, path = pooling_of(arguments.work / "model.safetensors"), arguments.out / "tasnif.json"
    manifest = tasnif_json(arguments.revision, evaluation["calibration"], pooling=pooling)
    manifest["text"] |= json.loads((source / "tasnif.json").read_text())["text"]
    recorded = json.loads(path.read_text()).get("precisions") if arguments.keep_weights else None
    return manifest | ({"precisions": recorded} if recorded else {})


def read_parts(work):
    """The figures of news at the top level, those of the other scripts under their names; none of other weights."""
    weights, parts = digest(work / "model.safetensors"), {}
    for name in (*OF_THE_WEIGHTS, *OF_THE_DATA):
        path = work / f"{name}.json"
        part = json.loads(path.read_text()) if path.exists() else {}
        if name in OF_THE_DATA and part:
            parts[name] = part
        elif part.get("weights") == weights:
            parts[name] = part["figures"]
        else:
            print(f"not measured{' with these weights' if part else ''}, so not in the card: {name}")
    if "news" not in parts:
        raise SystemExit(f"{work / 'news.json'} is not there, or of other weights: run evaluate.py first")
    return parts.pop("news") | parts


def write_weights(work, out):
    tensors = {name: to_half(name, value) for name, value in load_file(work / "model.safetensors").items()}
    path = out / "model.safetensors"
    save_weights(tensors, path.with_suffix(".new"), pooling_of(work / "model.safetensors"))
    path.with_suffix(".new").chmod(0o644)  # safetensors leaves it to its owner alone
    path.with_suffix(".new").replace(path)  # a running service may have the old file mapped


def to_half(name, value):
    half = value.to(torch.float16)
    if not torch.isfinite(half).all():
        raise SystemExit(f"{name} does not fit f16: its largest magnitude is {value.abs().max():.3g}")
    return half.contiguous()


if __name__ == "__main__":
    main()
