"""The chart: speed of every engine on each work, at the most threads that were measured."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as pyplot

COLOURS = {"f32": "#7a8793", "bf16": "#d08a2e", "int8": "#2f7d6d"}
OWN = "Tasnif "
ROW_INCHES, COLUMNS = 0.24, 2


def draw(result, path):
    entries = result["summary"]
    most = max((entry["threads"] for entry in entries), default=0)
    entries = [entry for entry in entries if entry["threads"] == most and entry["engines"]]
    if not entries:
        return
    # Texts stay texts, and the same figures give the same bytes.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tasnif", "font.size": 9})
    works = {work["name"]: work for work in result["works"]}
    rows = -(-len(entries) // COLUMNS)
    height = ROW_INCHES * max(len(entry["engines"]) for entry in entries) + 0.9
    figure, grid = pyplot.subplots(rows, COLUMNS, figsize=(11, rows * height), squeeze=False)
    panels = grid.ravel()
    for panel, entry in zip(panels, entries, strict=False):
        draw_work(panel, works[entry["work"]], entry)
    for panel in panels[len(entries) :]:
        panel.set_axis_off()
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    figure.legend(handles, list(COLOURS), loc="upper right", ncols=len(COLOURS), frameon=False)
    threads = f"{most} thread{'s' * (most > 1)}"
    figure.suptitle(
        f"{result['machine']['cpu']}, {threads}: medians, lowest and highest of the rounds", x=0.01, ha="left"
    )
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def draw_work(panel, work, entry):
    """A bar for each engine, the fastest at the top."""
    latency = work["kind"] == "latency"
    measure = "p50_ms" if latency else "tokens_per_s"
    ordered = sorted(entry["engines"].items(), key=lambda item: item[1][measure]["median"], reverse=latency)
    for place, (key, found) in enumerate(ordered):
        value = found[measure]
        error = [[value["median"] - value["min"]], [value["max"] - value["median"]]]
        own = key.startswith(OWN)
        panel.barh(
            place,
            value["median"],
            xerr=error,
            color=COLOURS[key.split()[-1]],
            alpha=1.0 if own else 0.55,
            edgecolor="black" if own else "none",
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
        shown = f"{value['median']:,.0f}" if value["median"] >= 100 else f"{value['median']:.3g}"
        panel.annotate(shown, (value["max"], place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    panel.set_yticks(range(len(ordered)), [key for key, _ in ordered])
    for label, (key, _) in zip(panel.get_yticklabels(), ordered, strict=True):
        label.set_fontweight("bold" if key.startswith(OWN) else "normal")
    panel.set_title(
        f"{work['title']}: {'p50, ms (less is faster)' if latency else 'tokens/s'}", loc="left", fontsize=10
    )
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.14, y=0.02)
