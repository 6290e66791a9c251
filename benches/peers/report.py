"""Raw runs -> medians and ratios, a table (Markdown), the raw figures (JSON) and a chart (SVG)."""

import json
import shlex
from statistics import median

import chart
import labels

OWN = "Tasnif "
REFERENCE = "reference f32"
CANDLE = "candle BertModel f32"


def write(result, out):
    out.mkdir(parents=True, exist_ok=True)
    result["summary"] = summary(result)
    (out / "peers.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "peers.md").write_text(markdown(result), encoding="utf-8")
    chart.draw(result, out / "peers.svg")


def summary(result):
    """For each work at each number of threads: figures of each engine, and ratios of Tasnif to peers.

    Speed is 1 / latency p50 for the works where latency counts, else tokens a second. A ratio is taken inside of each
    round, and what stands here is the median of the rounds.
    """
    found = []
    for work in result["works"]:
        for threads in sorted({run["threads"] for run in result["runs"]}, reverse=True):
            runs = [run for run in result["runs"] if (run["work"], run["threads"]) == (work["name"], threads)]
            keys = sorted({run["engine"] for run in runs})
            rounds = {key: speeds(work, [run for run in runs if run["engine"] == key]) for key in keys}
            peers = [key for key in keys if not key.startswith(OWN) and key != REFERENCE]
            own = [key for key in keys if key.startswith(OWN)]
            found.append(
                {
                    "work": work["name"],
                    "threads": threads,
                    "engines": {key: figures([run for run in runs if run["engine"] == key]) for key in keys},
                    "ratios": {key: ratios(rounds, key, peers) for key in own},
                }
            )
    return found


def speeds(work, runs):
    """By round; higher is faster."""
    if work["kind"] == "latency":
        return {run["round"]: 1 / run["latency_us"]["p50"] for run in runs}
    return {run["round"]: run["tokens_per_s"] for run in runs}


def figures(runs):
    values = {
        "tokens_per_s": [run["tokens_per_s"] for run in runs],
        "documents_per_s": [run["documents_per_s"] for run in runs],
        "p50_ms": [run["latency_us"]["p50"] / 1e3 for run in runs],
        "p99_ms": [run["latency_us"]["p99"] / 1e3 for run in runs],
    }
    return {
        "rounds": len(runs),
        **{name: {"median": median(each), "min": min(each), "max": max(each)} for name, each in values.items()},
    }


def ratios(rounds, key, peers):
    """How many times as fast as each peer, as the fastest of any precision, and as the fastest of its own."""
    precision = key.split()[-1]
    same = [peer for peer in peers if peer.split()[-1] == precision]
    against = {peer: ratio(rounds, key, [peer]) for peer in [*peers, REFERENCE] if peer in rounds}
    return {
        "fastest peer": ratio(rounds, key, peers),
        f"fastest {precision} peer": ratio(rounds, key, same),
        **against,
    }


def ratio(rounds, key, peers):
    """To the fastest of the peers: median, lowest and highest over the rounds in which this and all of them ran, since
    another would be the fastest where one has failed; None without any."""
    inside = [
        speed / max(rounds[peer][round_] for peer in peers)
        for round_, speed in rounds[key].items()
        if peers and all(round_ in rounds[peer] for peer in peers)
    ]
    if not inside:
        return None
    return {"rounds": len(inside), "median": median(inside), "min": min(inside), "max": max(inside)}


def markdown(result):
    parts = [
        "# Tasnif beside other engines",
        "",
        "By `benches/peers/run`; how to read it: [README.md](README.md); raw figures: [peers.json](peers.json).",
        "",
        *machine(result),
        "![speed of each engine](peers.svg)",
        "",
        *ratio_table(result),
        *work_tables(result),
        *scaling_table(result),
        *label_table(result),
        *setting_table(result),
        *absent_table(result),
    ]
    return "\n".join(parts).rstrip() + "\n"


def machine(result):
    facts = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    model = result["model"]
    rounds = f"{result['rounds']} rounds of {result['seconds']} s, {result['wall_s']} s in all"
    missing = set(result["threads"]) - {run["threads"] for run in result["runs"]}
    if missing:
        rounds += f"; stopped before the runs with {', '.join(map(str, missing))} threads"
    return table(
        ["", ""],
        [
            ["machine", f"{facts['cpu']} (family/model {facts['family_model']}), {facts['cpus_allowed']} CPUs"],
            ["instructions", " ".join(facts["flags"])],
            ["system", f"Linux {facts['kernel']}, {facts['memory_gib']} GiB, Python {facts['python']}"],
            ["packages", packages],
            ["model", f"{model['name']}, weights {model['sha256'][:12]}"],
            ["Tasnif", f"commit {result['commit']}"],
            ["run", f"{result['started']}, {rounds}"],
            ["command", f"`{shlex.join(result['command'])}`"],
        ],
    )


def ratio_table(result):
    rows = []
    for entry in result["summary"]:
        for key, found in entry["ratios"].items():
            same = next(name for name in found if name.startswith("fastest ") and name != "fastest peer")
            shown = [found.get(name) for name in ("fastest peer", same, CANDLE, REFERENCE)]
            cells = [times(each) + fewer(each, result) for each in shown]
            rows.append([title(result, entry), str(entry["threads"]), key, *cells])
    if not rows:
        return []
    return [
        "## How many times as fast as the peers",
        "",
        "Medians of the ratios inside of each round, lowest and highest, over the rounds in which all of these ran;"
        " how many, where some did not. One document at a time: ratios of p50.",
        "",
        *table(["work", "threads", "", "the fastest peer", "the fastest of its precision", CANDLE, REFERENCE], rows),
    ]


def work_tables(result):
    parts = []
    kinds = {work["name"]: work for work in result["works"]}
    for entry in result["summary"]:
        work = kinds[entry["work"]]
        latency = work["kind"] == "latency"
        lengths = work["lengths"]
        parts += [f"## {work['title']}, {entry['threads']} thread{'s' * (entry['threads'] > 1)}", ""]
        if work["kind"] == "mixed":
            spread = f"{lengths['min']} to {lengths['max']} tokens, median {lengths['median']}"
            parts += [f"{work['documents']} documents of {spread}.", ""]
        own = list(entry["ratios"])
        head = ["engine", "p50 ms", "p99 ms"] if latency else ["engine", "tokens/s", "documents/s"]
        head += ["lowest-highest", *(f"{key} is × as fast" for key in own)]
        speed = "p50_ms" if latency else "tokens_per_s"
        ordered = sorted(entry["engines"].items(), key=lambda item: item[1][speed]["median"], reverse=not latency)
        rows = []
        for key, found in ordered:
            second = found["p99_ms" if latency else "documents_per_s"]["median"]
            rows.append(
                [
                    bold(key) + fewer(found, result),
                    number(found[speed]["median"]),
                    number(second),
                    f"{number(found[speed]['min'])}-{number(found[speed]['max'])}",
                    *(times(entry["ratios"][mine].get(key), spread=False) for mine in own),
                ]
            )
        parts += table(head, rows)
    return parts


def scaling_table(result):
    """Of the works that are not latency, from one thread to more: ratios of medians, for the numbers of threads are not
    interleaved."""
    bulk = {work["name"]: work["title"] for work in result["works"] if work["kind"] != "latency"}
    speed = {
        (entry["work"], entry["threads"], key): found["tokens_per_s"]["median"]
        for entry in result["summary"]
        for key, found in entry["engines"].items()
    }
    rows = []
    for (work, threads, key), value in speed.items():
        alone = speed.get((work, 1, key))
        if work in bulk and threads > 1 and alone:
            rows.append([bulk[work], bold(key), f"1 to {threads}", f"{value / alone:.2f}"])
    if not rows:
        return []
    return ["## Scaling", "", *table(["work", "engine", "threads", "times as fast"], rows)]


def label_table(result):
    beside, rows = result["labels_beside"], []
    if beside is None:
        return ["## Agreement", "", f"Labels were not compared: neither {' nor '.join(labels.REFERENCES)} ran."]
    for key, found in result["labels"].items():
        if "failed" in found:
            rows.append([key, found["failed"], ""])
            continue
        shares = ", ".join(f"{name} {share:.2%}" for name, share in found["agreement"].items())
        rows.append([bold(key), shares, f"{found['max_logit_difference']:.2g}"])
    documents = next((found["documents"] for found in result["labels"].values() if "documents" in found), 0)
    return [
        f"## Agreement with {beside}",
        "",
        f"Share of {documents} documents of mixed lengths with the same label, and the largest difference of a logit.",
        "",
        *table(["engine", "same label", "largest difference"], rows),
    ]


def setting_table(result):
    rows = []
    words = {engine["key"]: engine["settings"] for engine in result["engines"]}
    for threads, settings in result["settings"].items():
        for key, chosen in settings.items():
            for name, setting in chosen.items():
                values = ", ".join(f"{label.replace('_', ' ')} {value}" for label, value in setting.items())
                rows.append([key, words.get(key, ""), threads, name, values])
    head = ["engine", "how", "threads", "work", "setting that won"]
    return [
        "## Settings",
        "",
        "The fastest of those tried, by a short run of each before the rounds.",
        "",
        *table(head, rows),
    ]


def absent_table(result):
    if not result["absent"]:
        return []
    return ["## What did not run", "", *table(["engine", "why"], [list(item) for item in result["absent"].items()])]


def title(result, entry):
    return next(work["title"] for work in result["works"] if work["name"] == entry["work"])


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines] + [""]


def bold(key):
    return f"**{key}**" if key.startswith(OWN) else key


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(found, spread=True):
    if not found:
        return ""
    text = f"{found['median']:.2f}"
    return f"{text} ({found['min']:.2f}-{found['max']:.2f})" if spread else text


def fewer(found, result):
    """How many rounds a figure is of, where some are missing."""
    if not found or found["rounds"] == result["rounds"]:
        return ""
    return f", {found['rounds']} of {result['rounds']} rounds"
