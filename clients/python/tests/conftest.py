"""The real server and the shipped model, and texts written for these tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasnif import Client, Retry

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("TASNIF_BINARY") or ROOT / "target/release/tasnif")
MODEL = ROOT / "models/tasnif-base"
LIMIT_S = 60

# One sentence of each would do: which topic it is, is the model's own business.
SUBJECTS = ("المنتخب الوطني", "البنك المركزي", "مجلس الوزراء", "فريق الباحثين", "وزارة الصحة")
VERBS = ("أعلن عن", "ناقش أمس", "رفض بشدة", "أشاد بنتائج")
OBJECTS = (
    "خطة جديدة للعام المقبل",
    "تراجع أسعار النفط",
    "مباراة النهائي في الملعب",
    "علاج واعد للمرض",
    "قانون الانتخاب",
)
PLACES = ("في العاصمة", "خلال مؤتمر صحفي", "وسط ترحيب الجمهور", "رغم الخسائر الفادحة")


def article(number: int) -> str:
    """A short text of its own for each number below 400, and different ones from there on by the number in it."""
    parts = []
    for words in (SUBJECTS, VERBS, OBJECTS, PLACES):
        number, index = divmod(number, len(words))
        parts.append(words[index])
    return " ".join(parts) + (f" للمرة {number}." if number else ".")


class Server:
    """`tasnif serve` on a Unix socket, which may be stopped and started again."""

    def __init__(self, directory: Path, *arguments: str, listen: str | None = None) -> None:
        self.target = listen or f"unix:{directory / 'socket'}"
        self._log = directory / "log"
        self._command = [str(BINARY), "serve", "--model", str(MODEL), "--listen", self.target, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it; calls before it serves are UNAVAILABLE."""
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it as an operator would."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(LIMIT_S)


@contextlib.contextmanager
def serving(directory: Path, *arguments: str) -> Iterator[Server]:
    """A server that serves, until the end of the block."""
    server = Server(directory, *arguments)
    try:
        with Client(server.target) as client:
            client.wait_until_serving(LIMIT_S)
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the default settings."""
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of it."""
    with Client(server.target) as client:
        yield client


@pytest.fixture
def quick() -> Retry:
    """Retries that do not keep a test waiting."""
    return Retry(max_attempts=5, initial_backoff_s=0.01, max_backoff_s=0.05)
