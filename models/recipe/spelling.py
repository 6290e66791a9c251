"""How often another spelling of the same title and lead changes the label, on test_saudi. Writes `work/spelling.json`.

python spelling.py
"""

from common import SHIPPED_TASKS, write_figures
from noise import PERTURBATIONS
from readings import Reader, reader_arguments


def main():
    arguments = reader_arguments(__doc__).parse_args()
    reader = Reader(arguments)
    result = {}
    for name in PERTURBATIONS:
        result[name] = flips(name, reader)
        print(name, result[name], flush=True)
        write_figures(arguments.work / "spelling.json", result, reader.weights)


def flips(name, reader):
    """Share of labels that the spelling changes, and the accuracy that is left."""
    shares = {}
    plain, changed = reader.logits("test_saudi_lead"), reader.logits(f"spelling_{name}")
    for task in SHIPPED_TASKS:
        before, after = plain[task].argmax(1), changed[task].argmax(1)
        truth = reader.shard("test_saudi_lead").labels[task]
        shares[task] = {"flipped": float((before != after).mean()), "accuracy": float((after == truth).mean())}
    return shares


if __name__ == "__main__":
    main()
