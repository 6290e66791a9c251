"""What helps: one change of the training at a time beside the same control, on four layers of the backbone and a quarter
of the labels, so that a trial takes minutes; by the dev split. Goes on where it was interrupted. Writes `work/trials.json`.

    python trials.py
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from common import DEFAULT_SHARED, DEFAULT_WORK, HERE, write_json
from distill import cut
from prepare import link_shards

LAYERS = (1, 4, 8, 11)  # of the backbone
SHORT = ["--train-share", "0.25", "--stage1-steps", "100", "--epochs", "1.35", "--dev-checks", "0"]
TRIALS = {
    "control": [],
    "another seed": ["--seed", "29"],
    "twice the rate": ["--lr", "1.6e-4"],
    "title and lead alone": ["--crops", "lead"],
    "titles alone": ["--crops", "title"],
    "no first stage": ["--stage1-steps", "0"],
    "twice the epochs": ["--epochs", "2.7"],
    "topics weigh alike": ["--class-weights", "0"],
    "no careless spelling": ["--noisy", "0"],
    "masked-language training first": [],
    "masked-language training over every article first": [],
    # As many steps as the control's: a third of the rows that they read are self-taught.
    "self-taught": ["--self-taught", "0.5", "--epochs", "0.9"],
}
# Each article is read once at most, so 2,400 are all that the articles fill: 2,320.
MASKED_STEPS = {"masked-language training first": 400, "masked-language training over every article first": 2400}
TEACHERS = {"self-taught": ["control", "another seed"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=DEFAULT_SHARED, help="folder with backbone/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder that prepare.py filled")
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=TRIALS, metavar="TRIAL")
    parser.add_argument("--threads", type=int, help="of each training")
    arguments = parser.parse_args()
    folder = arguments.work / "trials"
    if not (folder / "backbone/model.safetensors").exists():
        cut_backbone(arguments.shared / "backbone", folder / "backbone")
    threads = ["--threads", arguments.threads] if arguments.threads else []
    for name in arguments.only:
        work, shared = trial(folder, name), folder
        link_shards(arguments.work, work)
        if name in MASKED_STEPS:
            shared = work / "adapted"
            options = ["--stage1-steps", MASKED_STEPS[name], *threads]
            run("adapt.py", "--shared", folder, "--shards", arguments.work, "--work", shared, *options)
        if name in TEACHERS:
            (work / "bundle").mkdir(exist_ok=True)
            shutil.copyfile(folder / "backbone/config.json", work / "bundle/config.json")
            teachers = [trial(folder, teacher) / "model.safetensors" for teacher in TEACHERS[name]]
            run("self_train.py", "--work", work, "--teachers", *teachers, *threads)
        run("train.py", "--shared", shared, "--work", work, *SHORT, *TRIALS[name], *threads)
    write_json(arguments.work / "trials.json", results(folder))


def trial(folder, name):
    return folder / name.replace(",", "").replace(" ", "-")


def run(script, *options):
    subprocess.run([sys.executable, str(HERE / script), *map(str, options)], check=True)


def cut_backbone(whole, part):
    part.mkdir(parents=True, exist_ok=True)
    config = json.loads((whole / "config.json").read_text())
    write_json(part / "config.json", config | {"num_hidden_layers": len(LAYERS)})
    save_file(cut(load_file(whole / "model.safetensors"), LAYERS), part / "model.safetensors", metadata={"format": "pt"})


def results(folder):
    """Figures of the weights that each trial chose."""
    found = {}
    for name in TRIALS:
        path = trial(folder, name) / "training.json"
        if path.exists():
            last = json.loads(path.read_text())["runs"][-1]
            found[name] = last["dev"][last["chosen"]]
    return found


if __name__ == "__main__":
    main()
