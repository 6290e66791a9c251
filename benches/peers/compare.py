"""Runs Tasnif and the peers interleaved on the same token ids and writes table, raw figures and chart.

Started by `run`, which makes the virtual environment; see docs/performance/README.md.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import engines
import labels
import machine
import report
import tasnif
import work

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCRATCH = ROOT / "target" / "peers"
SHORTEST_S = 4.0  # of a run of Tasnif, in which its reference too answers a batch on a slow core; peers end whole batches
PAUSE_S = 0.2  # after a run, for spinning threads to come to rest


def main():
    options = arguments()
    started = time.time()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    works, checked, calibration = work.make(options.model, options.docs, options.checked, options.texts)
    works = [each for each in works if each.name in (options.works or [each.name])]
    work.save(SCRATCH / "works.json", works, checked)
    made = export(options, calibration)
    contestants, absent = choose(options, made)
    for contestant in contestants:
        if isinstance(contestant, tasnif.Tasnif):
            for name, documents in [("checked", checked), *((each.name, each.documents) for each in works)]:
                contestant.write(name, documents)

    result = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["benches/peers/run", *sys.argv[1:]],
        "commit": machine.commit(ROOT),
        "machine": machine.facts(),
        "model": {"name": options.model.name, "sha256": digest(options.model / "model.safetensors")},
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "works": [describe(each) for each in works],
        "exports": made,
        "engines": [described(variant, options) for variant in engines.VARIANTS],
        "absent": absent,
        "labels": {},
        "settings": {},
        "tuning": [],
        "runs": [],
    }
    for threads in options.threads:
        measure(threads, works, contestants, options, result)
        # Each time, so that a run which is stopped leaves something.
        beside, compared = labels.compare(result["labels"], options.model)
        written = {"labels_beside": beside, "labels": compared, "wall_s": round(time.time() - started)}
        report.write(result | written, options.out)
    print(f"{options.out}: peers.md, peers.json, peers.svg in {written['wall_s']} s")
    labels.require(compared, report.OWN)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tasnif-base", help="a bundle")
    parser.add_argument("--tasnif", type=Path, default=ROOT / "target" / "release" / "tasnif", help="the binary")
    parser.add_argument("--precisions", nargs="+", default=["f32", "bf16", "int8", "reference"], help="of Tasnif")
    parser.add_argument("--engines", nargs="+", metavar="TEXT", help="only the peers whose name starts so")
    parser.add_argument("--works", nargs="+", metavar="NAME", help="only these, such as 16x128")
    parser.add_argument("--threads", nargs="+", type=int, help="default: 2 1, or what the machine has")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run, at least")
    parser.add_argument("--docs", type=int, default=4 * work.BLOCK, help=f"of mixed lengths; {work.BLOCK} × n")
    parser.add_argument("--checked", type=int, default=384, help="documents whose labels are compared")
    parser.add_argument("--texts", type=Path, help="JSON Lines (.gz) with `text` and `title`")
    parser.add_argument(
        "--cut-last-layer",
        action="store_true",
        help="OpenVINO's graph is rewritten by hand, so that its last layer has the first query alone, and what follows from it",
    )
    parser.add_argument("--reuse-exports", action="store_true", help="if the model is the same")
    parser.add_argument("--quick", action="store_true", help="one short round, for trying it out")
    parser.add_argument("--out", type=Path, help="default: docs/performance, or target/peers/quick with --quick")
    options = parser.parse_args()
    if options.docs < 1 or options.docs % work.BLOCK:
        parser.error(f"--docs {options.docs}: a multiple of {work.BLOCK} is needed")
    cpus = len(os.sched_getaffinity(0))
    options.threads = options.threads or [threads for threads in (2, 1) if threads <= cpus]
    if max(options.threads) > cpus:
        parser.error(f"--threads {max(options.threads)}: {cpus} CPUs are allowed here")
    if options.quick:
        options.rounds, options.seconds = 1, min(options.seconds, 0.5)
        options.docs, options.checked = work.BLOCK, min(options.checked, 16)
    options.out = options.out or (SCRATCH / "quick" if options.quick else ROOT / "docs" / "performance")
    options.model, options.tasnif = options.model.resolve(), options.tasnif.resolve()
    if options.cut_last_layer and work.pooling(options.model) != "cls":
        parser.error(f"--cut-last-layer: all of the last layer of {options.model.name} is read")
    return options


def describe(each):
    lengths = sorted(map(len, each.documents))
    return {
        "name": each.name,
        "kind": each.kind,
        "title": each.title,
        "documents": len(lengths),
        "tokens": sum(lengths),
        "lengths": {"min": lengths[0], "median": lengths[len(lengths) // 2], "max": lengths[-1]},
    }


def described(variant, options):
    cut = options.cut_last_layer and (variant.needs or "").startswith("openvino")
    return vars(variant) | {"key": variant.key, "settings": variant.settings + (", last layer cut by hand" if cut else "")}


def digest(path):
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def export(options, calibration):
    """What export.py made; again for each run unless the model, the scripts' pins and the wish are the same."""
    bundle, cut = options.model, ["--cut"] if options.cut_last_layer else []
    artefacts = SCRATCH / "artefacts"
    stamp, made = artefacts / "stamp", artefacts / "made.json"
    sources = [bundle / "model.safetensors", bundle / "tasnif.json", *(HERE / name for name in ("requirements.txt", "export.py", "model.py"))]
    wanted = "\n".join([*map(digest, sources), *cut])
    if not (options.reuse_exports and made.exists() and stamp.exists() and stamp.read_text() == wanted):
        # What is left of another model must not be taken for this one's where an export fails.
        shutil.rmtree(artefacts, ignore_errors=True)
        artefacts.mkdir()
        ids = artefacts / "calibration.json"
        ids.write_text(json.dumps(calibration))
        with (SCRATCH / "export.log").open("w") as log:
            command = [sys.executable, str(HERE / "export.py"), str(bundle), str(artefacts), str(ids), *cut]
            print(f"exporting the model to each peer (log: {log.name})", flush=True)
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
        stamp.write_text(wanted)
    return json.loads(made.read_text())


def choose(options, made):
    """Who takes part, and why the others do not."""
    contestants, absent = [], {}
    for variant in engines.VARIANTS:
        if options.engines and not any(variant.key.lower().startswith(text.lower()) for text in options.engines):
            absent[variant.key] = "not asked for (--engines)"
        elif "failed" in made.get(variant.needs, {}):
            absent[variant.key] = f"export of {variant.needs}: {made[variant.needs]['failed']}"
        else:
            contestants.append(variant)
    folder = SCRATCH / "tasnif"
    folder.mkdir(exist_ok=True)
    for precision in options.precisions:
        contestants.append(tasnif.Tasnif(options.tasnif, options.model, precision, folder))
    return contestants, absent


def measure(threads, works, contestants, options, result):
    """Labels, then tuning, then the rounds, all at one number of threads. Whoever fails in the last two takes no part
    from there on."""
    with ExitStack() as stack:
        racers = []
        for contestant in contestants:
            racer = attempt(result, contestant.key, threads, start, contestant, threads, options, stack)
            if racer:
                racers.append(racer)
        if not result["labels"]:
            collect_labels(racers, threads, result)
        settings = {}
        for racer in list(racers):
            tuned = attempt(result, racer.key, threads, tune, racer, works, threads, options, result)
            if tuned:
                settings[racer.key] = tuned
            else:
                racers.remove(racer)
        result["settings"][str(threads)] = settings
        for round_ in range(options.rounds):
            for place, each in enumerate(works):
                turn = (round_ * len(works) + place) % max(1, len(racers))
                for racer in racers[turn:] + racers[:turn]:
                    setting = settings[racer.key][each.name]
                    run = attempt(result, racer.key, threads, racer.run, each.name, setting, options.seconds)
                    if run:
                        key = {"engine": racer.key, "work": each.name, "threads": threads, "round": round_}
                        result["runs"].append(key | run)
                        tell(threads, f"round {round_ + 1}", each, racer, figure(each, run))
                    else:
                        racers.remove(racer)


def attempt(result, key, threads, action, *given):
    """What the action returns, or None with the reason written down."""
    try:
        return action(*given)
    except Exception as error:  # a peer's failure is a finding
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        result["absent"].setdefault(key, f"at {threads} threads: {reason}")
        print(f"{threads}T {key}: {reason}", file=sys.stderr, flush=True)
        return None


def tell(threads, what, each, racer, outcome):
    print(f"{threads}T {what:8} {each.name:15} {racer.key:24} {outcome}", flush=True)


def figure(each, run):
    if each.kind == "latency":
        return f"{run['latency_us']['p50'] / 1e3:9.2f} ms p50"
    return f"{run['tokens_per_s']:9.0f} tokens/s"


def collect_labels(racers, threads, result):
    for racer in racers:
        logits = attempt(result, f"{racer.key} labels", threads, racer.logits)
        if logits:
            result["labels"][racer.key] = logits


def tune(racer, works, threads, options, result):
    """For each work the setting with the most tokens a second, from a short run of each that works."""
    chosen = {}
    for each in works:
        best, failure = None, None
        for setting in racer.settings(each):
            try:
                run = racer.run(each.name, setting, options.seconds / 3)
            except RuntimeError as error:
                failure = error
                continue
            note = {"engine": racer.key, "work": each.name, "threads": threads, "setting": setting}
            result["tuning"].append(note | {"tokens_per_s": run["tokens_per_s"]})
            if best is None or run["tokens_per_s"] > best[0]:
                best = (run["tokens_per_s"], setting)
        if best is None:
            raise failure
        chosen[each.name] = best[1]
        tell(threads, "tuned", each, racer, best[1])
    return chosen


def start(contestant, threads, options, stack):
    if isinstance(contestant, tasnif.Tasnif):
        return Command(contestant, threads)
    racer = Process(contestant, threads, options.model)
    stack.callback(racer.close)
    racer.ready()
    return racer


class Command:
    """Tasnif: a command for each run."""

    def __init__(self, inner, threads):
        self.inner, self.threads, self.key = inner, threads, inner.key
        if not inner.binary.exists():
            raise RuntimeError(f"{inner.binary.name} is not built")

    def settings(self, each):
        return tasnif.settings(each.kind, self.threads)

    def run(self, name, setting, seconds):
        answer = self.inner.run(name, self.threads, setting, max(seconds, SHORTEST_S))
        time.sleep(PAUSE_S)
        return answer

    def logits(self):
        return self.inner.logits(self.threads)


class Process:
    """A peer: worker.py, stopped while it is not its turn."""

    def __init__(self, variant, threads, bundle):
        self.key, self.threads = variant.key, threads
        self.log = SCRATCH / f"{variant.key.replace(' ', '-').lower()}-{threads}.log"
        arguments = [variant.key, threads, bundle, SCRATCH / "artefacts", SCRATCH / "works.json"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py"), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ready(self):
        self.answer()
        self.process.send_signal(signal.SIGSTOP)

    def settings(self, each):
        """Streams: all threads on one batch, or a batch a thread."""
        streams = [1] if self.threads == 1 or each.kind == "latency" else [1, self.threads]
        return [{"streams": count, "batch": size} for count in streams for size in each.sizes]

    def run(self, name, setting, seconds):
        return self.ask({"do": "run", "work": name, "setting": setting, "seconds": seconds})

    def logits(self):
        return self.ask({"do": "logits"})["logits"]

    def ask(self, command):
        self.process.send_signal(signal.SIGCONT)
        try:
            with suppress(BrokenPipeError):  # its process has ended, as answer() says
                self.process.stdin.write(json.dumps(command) + "\n")
                self.process.stdin.flush()
            return self.answer()
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def answer(self):
        text = self.process.stdout.readline()
        if not text:
            raise RuntimeError(f"its process ended with {self.process.wait(timeout=10)}; log: {self.log.name}")
        answer = json.loads(text)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def close(self):
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    main()
