"""candle's own BertModel, in processes of its own: ../candle."""

import os
import subprocess
from pathlib import Path

import numpy as np

import work
from engines.by_streams import ByStreams

BINARY = Path(__file__).resolve().parent.parent.parent.parent / "target/peers/candle/release/candle-peer"


class Engine(ByStreams):
    def __init__(self, mode, bundle, artefacts, threads):
        del mode, artefacts
        if not BINARY.exists():
            raise RuntimeError(f"{BINARY.name} is not built: benches/peers/run builds it")
        super().__init__()
        self.bundle, self.threads = bundle, threads

    def make_session(self, streams):
        return Session(self, streams)


class Session:
    """A process a stream. They end with this one, when their input does."""

    def __init__(self, engine, streams):
        tasks = work.tasks(engine.bundle)
        self.labels = sum(count for _, count in tasks)
        command = [BINARY, engine.bundle, work.pooling(engine.bundle), *(name for name, _ in tasks)]
        # candle has a pool of its own beside rayon's, of as many threads as the machine has cores unless told.
        threads = str(engine.threads // streams)
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "CANDLE_NUM_THREADS": threads}
        given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
        self.processes = [subprocess.Popen(list(map(str, command)), **given) for _ in range(streams)]

    def enter(self):
        pass

    def run(self, stream, batch):
        process = self.processes[stream]
        sizes = np.array(batch.ids.shape, "<u4")
        process.stdin.write(b"".join(part.tobytes() for part in (sizes, batch.ids.astype("<i8"), batch.mask.astype("<i8"))))
        process.stdin.flush()
        logits = process.stdout.read(len(batch.ids) * self.labels * 4)
        if len(logits) < len(batch.ids) * self.labels * 4:
            raise RuntimeError(f"{BINARY.name} ended with {process.wait()}")
        return np.frombuffer(logits, "<f4").reshape(len(batch.ids), self.labels)
