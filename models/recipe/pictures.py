"""The pictures of a model card, as small SVG files: confusion matrix, reliability diagram, risk-coverage curve."""

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "tasnif", "font.size": 8, "font.family": "sans-serif"}

import numpy as np  # noqa: E402
from matplotlib import pyplot  # noqa: E402

MIN_BIN_ROWS = 10  # fewer say nothing
SHOWN = {"test_saudi_lead": "test_saudi", "dev": "dev"}


def draw(news, folder):
    """Writes every picture of `news` (see evaluate.py) into `folder`; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for task, figures in news["sets"]["test_saudi_lead"].items():
        made.append(save(confusion(figures), folder / f"confusion_{task}.svg"))
    made.append(save(side_by_side(news, reliability), folder / "reliability.svg"))
    made.append(save(side_by_side(news, risk_coverage), folder / "risk_coverage.svg"))
    return made


def confusion(figures):
    labels, counts = list(figures["classes"]), np.array(figures["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 1.6 + 0.27 * len(labels)
    figure, axes = pyplot.subplots(figsize=(size, size), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts)):
        color = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=7)
    ticks = np.arange(len(labels))
    axes.set(xlabel="predicted", ylabel="label", yticks=ticks, yticklabels=labels)
    axes.set_xticks(ticks, labels, rotation=90)
    return figure


def side_by_side(news, plot):
    tasks = list(news["sets"]["dev"])
    figure, panels = pyplot.subplots(1, len(tasks), figsize=(3 * len(tasks), 3), layout="constrained")
    for axes, task in zip(panels, tasks):
        for name, title in SHOWN.items():
            plot(axes, news["sets"][name][task], title)
        axes.set_title(task)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def reliability(axes, figures, title):
    rows, confidence, accuracy = map(np.array, figures["reliability"].values())
    shown = rows >= MIN_BIN_ROWS
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.plot(confidence[shown], accuracy[shown], marker=".", label=title)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))


def risk_coverage(axes, figures, title):
    curve = figures["risk_coverage"]
    axes.plot(curve["coverage"], curve["risk"], label=title)
    axes.set(xlabel="share kept", ylabel="share of those wrong", xlim=(0, 1), ylim=(0, None))


def save(figure, path):
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path.name
