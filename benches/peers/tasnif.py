"""Tasnif, and its reference, by the command line: `tasnif bench core` on the same token ids and CPUs."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parent.parent.parent
# Rounds repeat, not the command; half a second warms up.
ONE_RUN = ("--repeat", 1, "--warmup", 0.5)


@dataclass
class Tasnif:
    """`precision`: as --precision takes it; "reference" is its own encoder in candle, in f32."""

    binary: Path
    bundle: Path
    precision: str
    folder: Path  # for ids and answers

    @property
    def key(self):
        return "reference f32" if self.precision == "reference" else f"Tasnif {self.precision}"

    def write(self, name, documents):
        path = self.folder / f"{name}.ids.jsonl"
        path.write_text("".join(json.dumps(ids) + "\n" for ids in documents), encoding="utf-8")

    def run(self, work, threads, setting, seconds):
        out = self.folder / "answer.json"
        asked = [*flags(setting), "--seconds", seconds, *ONE_RUN, "--json", out]
        self.call(threads, work, *asked)
        answer = json.loads(out.read_text(encoding="utf-8"))
        if answer["threads"] != threads:
            raise RuntimeError(f"--threads {threads} was asked for, {answer['threads']} is what the answer says")
        if self.precision not in (answer["precision"], "reference"):
            raise RuntimeError(f"--precision {self.precision} was asked for, {answer['precision']} ran")
        if answer.get("errors") or not answer["latency_us"]:
            raise RuntimeError(f"documents were not answered: {answer.get('errors')}")
        kept = ("tokens_per_s", "documents_per_s", "latency_us")
        return {key: answer[key] for key in kept} | {
            "command": self.command(threads, work, *asked),
            "reported": answer,
        }

    def logits(self, threads):
        """One line of all tasks' logits, side by side, for each document of checked.ids.jsonl."""
        out = self.folder / "logits.jsonl"
        out.unlink(missing_ok=True)
        # What is measured besides is not looked at.
        self.call(threads, "checked", "--logits", out, "--concurrency", 1, "--repeat", 1, "--warmup", 0, "--seconds", 1)
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]

    def command(self, threads, work, *more):
        ids = self.folder / f"{work}.ids.jsonl"
        asked = ["--model", self.bundle, "--ids", ids, "--precision", self.precision, "--threads", threads, *more]
        words = [self.binary, "bench", "core", *asked]
        return [os.path.relpath(word, ROOT) if isinstance(word, Path) else str(word) for word in words]

    def call(self, threads, work, *more):
        cpus = machine.cpus(threads)
        # Of candle's own pool, in the reference.
        environment = os.environ | {"CANDLE_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
        answer = subprocess.run(
            self.command(threads, work, *more),
            cwd=ROOT,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            lines = (answer.stderr.strip() or answer.stdout.strip() or "no output").splitlines()
            # Hints may follow the reason.
            reason = next((line for line in reversed(lines) if line.startswith("tasnif:")), lines[-1])
            raise RuntimeError(f"exit {answer.returncode}: {reason}")


def flags(setting):
    return [item for name, value in setting.items() for item in (f"--{name.replace('_', '-')}", value)]


def settings(kind, threads):
    """The settings that are tried; the fastest is kept, as for the peers."""
    if kind == "latency":
        return [{"batch_tokens": 2048, "concurrency": 1}]
    if kind == "uniform":  # 16 × 128 tokens a batch: one batch in flight, or one running and one waiting a thread
        return [{"batch_tokens": 2048, "concurrency": documents} for documents in (16, 16 * (threads + 1))]
    return [{"batch_tokens": tokens, "concurrency": 64} for tokens in (2048, 4096, 8192)]
