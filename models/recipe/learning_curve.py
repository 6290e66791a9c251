"""What more labels would bring: the same training on shares of news/train, measured on the dev split. Each share has
its work folder, so an interrupted curve goes on. Writes `work/learning_curve.json`.

    python learning_curve.py
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from common import DEFAULT_SHARED, DEFAULT_WORK, HERE, write_json
from prepare import link_shards


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=DEFAULT_SHARED, help="folder with backbone/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder that prepare.py filled")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("train", nargs=argparse.REMAINDER, help="after --: further options of train.py")
    arguments = parser.parse_args()
    further = [option for option in arguments.train if option != "--"]
    curve = {}
    for share in arguments.shares:
        folder = arguments.work / f"share-{share}"
        link_shards(arguments.work, folder)
        command = [sys.executable, HERE / "train.py", "--shared", arguments.shared, "--work", folder]
        subprocess.run([*map(str, command), "--train-share", str(share), *further], check=True)
        run = json.loads((folder / "training.json").read_text())["runs"][-1]
        curve[str(share)] = run["dev"][run["chosen"]]
        print(share, curve[str(share)], flush=True)
    write_json(arguments.work / "learning_curve.json", curve)


if __name__ == "__main__":
    main()
