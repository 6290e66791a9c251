"""One engine at one number of threads, in a process of its own: reads a command a line, answers with JSON a line.

    python worker.py VARIANT-KEY THREADS BUNDLE ARTEFACTS WORKS

Commands: {"do": "run", "work": …, "setting": {"streams": …, "batch": …}, "seconds": …} and {"do": "logits"}.
compare.py stops the process (SIGSTOP) while it is not its turn.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from itertools import cycle
from pathlib import Path

import machine


def main():
    key, threads, bundle, artefacts, works_file = sys.argv[1:]
    threads = int(threads)
    die_with_parent()
    use_cpus(threads)
    # Libraries print to stdout: what they print goes to the log, and answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    worker = None
    try:
        worker = Worker(key, threads, Path(bundle), Path(artefacts), Path(works_file))
        answer = {"ready": True}
    except Exception as error:  # the reason is the answer: compare.py reports the engine as absent
        answer = failure(error)
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        line = sys.stdin.readline() if worker else ""
        if not line:
            return
        try:
            command = json.loads(line)
            answer = worker.logits() if command["do"] == "logits" else worker.run(**command)
        except Exception as error:
            answer = failure(error)


def die_with_parent():
    """A stopped process does not see that its input has ended."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG, see prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def use_cpus(threads):
    """Before any library counts them."""
    os.sched_setaffinity(0, machine.cpus(threads))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def failure(error):
    return {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}


class Worker:
    def __init__(self, key, threads, bundle, artefacts, works_file):
        import engines
        import work

        self.work = work
        self.works, self.checked = work.load(works_file)
        self.pad_id = json.loads((bundle / "config.json").read_text(encoding="utf-8"))["pad_token_id"]
        variant = next(variant for variant in engines.VARIANTS if variant.key == key)
        self.engine = engines.create(variant, bundle, artefacts, threads)
        self.prepared = {}

    def run(self, work, setting, seconds, do=None):
        """Runs whole units of batches for at least `seconds`; every batch is padded and in memory beforehand."""
        streams, size = setting["streams"], setting["batch"]
        if (work, size) not in self.prepared:
            self.prepared[work, size] = cycle(self.work.batches(self.works[work], size, self.pad_id))
        units = self.prepared[work, size]
        mixed = self.works[work].kind == "mixed"
        unit = next(units)
        session = self.engine.session(streams, None if mixed else unit[0].ids.shape)
        warm_up = [max(unit, key=lambda batch: batch.ids.size)] * streams
        drive(session, streams, iter(warm_up))
        run = Run(unit, units, seconds)
        elapsed = drive(session, streams, run)
        return {
            "tokens_per_s": run.tokens / elapsed,
            "documents_per_s": run.documents / elapsed,
            "latency_us": percentiles(run.latencies),
            "padding": 1 - run.tokens / run.places,
            "elapsed_s": elapsed,
            "batches": len(run.latencies),
        }

    def logits(self):
        """Of the checked documents in their order, from padded batches of mixed lengths."""
        checked = self.work.Work("checked", "mixed", "", self.checked, sort=True)
        session = self.engine.session(1, None)
        session.enter()
        rows = [None] * len(self.checked)
        for unit in self.work.batches(checked, 16, self.pad_id):
            for batch in unit:
                for place, row in zip(batch.places, session.run(0, batch), strict=True):
                    rows[place] = row.tolist()
        return {"logits": rows}


class Run:
    """The batches of one run, shared by its streams, and what was seen of them."""

    def __init__(self, first, units, seconds):
        self.rest, self.units = list(reversed(first)), units
        self.lock, self.end = threading.Lock(), time.perf_counter() + seconds
        self.tokens = self.documents = self.places = 0
        self.latencies = []

    def __next__(self):
        with self.lock:
            if not self.rest:
                if time.perf_counter() >= self.end:
                    raise StopIteration
                self.rest = list(reversed(next(self.units)))
            return self.rest.pop()

    def done(self, batch, seconds):
        with self.lock:
            self.tokens += batch.tokens
            self.documents += len(batch.ids)
            self.places += batch.ids.size
            self.latencies.append(seconds)


def drive(session, streams, batches):
    """Every stream takes the next batch until there is none; seconds from start to the end of the last."""
    lock, failures = threading.Lock(), []
    done = getattr(batches, "done", lambda batch, seconds: None)

    def stream(index):
        try:
            session.enter()
            while True:
                with lock:
                    batch = next(batches, None)
                if batch is None:
                    return
                start = time.perf_counter()
                session.run(index, batch)
                done(batch, time.perf_counter() - start)
        except Exception as error:
            failures.append(error)

    start = time.perf_counter()
    if streams == 1:
        stream(0)
    else:
        callers = [threading.Thread(target=stream, args=(index,)) for index in range(streams)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - start


def percentiles(seconds):
    ordered = sorted(seconds)
    return {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] * 1e6 for share in (50, 99)}


if __name__ == "__main__":
    main()
