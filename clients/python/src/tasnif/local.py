"""A server of this machine that the processes which use it share: the first starts it, it ends after the last."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .client import Client
from .errors import CallError, ServerStartError

_POLL_S = 1.0
_LOG_TAIL_BYTES = 4096
# sockaddr_un has 108 bytes, on macOS 104, with a zero at the end.
_MAX_SOCKET_PATH_BYTES = 103


class LocalServer:
    """A share in `tasnif serve` on a Unix socket. A context manager that gives it back.

    Processes that ask for the same thing get the same server, of which a lock file has one started only; it is
    started again if it crashes. A process that ends gives its share back, even where it is killed.

    Args:
        binary: The `tasnif` to run: a path, or a name on PATH. ``TASNIF_BINARY`` in the environment, or ``tasnif``.
        model: A model directory; the one that the server finds by itself if None.
        args: Further arguments of `tasnif serve`.
        scope: Processes of another scope get a server of their own.
        directory: Where the socket, the locks and the log are; one in the system's directory for temporary files.
        start_timeout_s: How long to wait until it serves.

    Raises:
        ServerStartError: It does not serve within that time, or ends before; with the tail of its log.
    """

    def __init__(
        self,
        *,
        binary: str | Path | None = None,
        model: str | Path | None = None,
        args: Sequence[str] = (),
        scope: str = "",
        directory: str | Path | None = None,
        start_timeout_s: float = 120.0,
    ) -> None:
        found = shutil.which(str(binary or os.environ.get("TASNIF_BINARY") or "tasnif"))
        if found is None:
            raise ServerStartError(
                "there is no tasnif to run; name it with binary=… or TASNIF_BINARY, or put it on PATH"
            )
        # Another process's working directory may be another, in which a path is another file.
        settings = {name: value for name, value in os.environ.items() if name.startswith("TASNIF_")}
        settings.pop("TASNIF_BINARY", None)
        found, place = os.path.abspath(found), os.getcwd()
        if model is not None and os.path.exists(model):
            model = os.path.abspath(model)
            place = place if args or settings else ""
        command = [found, "serve", "--log", "warn", *(["--model", str(model)] if model is not None else []), *args]
        asked = [command, scope, sorted(settings.items()), place]
        self._directory = Path(directory) if directory is not None else _shared_directory(asked)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket = self._directory / "server.sock"
        if len(os.fsencode(socket)) > _MAX_SOCKET_PATH_BYTES:
            raise ServerStartError(f"{socket} is too long for a socket; give a shorter directory=…")
        self._command = [*command, "--listen", f"unix:{socket}"]
        self.target = f"unix:{socket}"
        """Where it listens, for `Client`."""
        self._deadline = time.monotonic() + start_timeout_s
        self._users: int | None = os.open(self._directory / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._become_user()
            self._start_or_find()
        except BaseException:
            self.close()
            raise

    @property
    def log_tail(self) -> str:
        """The end of the server's log."""
        try:
            with open(self._directory / "server.log", "rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                return log.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        """Gives the share back; the server ends if it was the last."""
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _become_user(self) -> None:
        """Takes a shared lock, which a server that is about to end, for want of users, keeps from us until it has."""
        assert self._users is not None
        while not _try_lock(self._users, fcntl.LOCK_SH):
            if self._remaining_s() <= 0:
                raise ServerStartError(f"the server before does not end{self._log_note()}")
            time.sleep(_POLL_S / 10)

    def _start_or_find(self) -> None:
        has_started = False
        with Client(self.target) as client:
            while True:
                serving = os.open(self._directory / "serving.lock", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    if _try_lock(serving, fcntl.LOCK_EX):
                        if has_started:
                            raise ServerStartError(f"{' '.join(self._command)} ended{self._log_note()}")
                        self._start(serving)
                        has_started = True
                finally:
                    # The supervisor has inherited the lock.
                    os.close(serving)
                try:
                    return client.wait_until_serving(min(_POLL_S, max(0.1, self._remaining_s())))
                except CallError as error:
                    if self._remaining_s() <= 0:
                        raise ServerStartError(f"{self.target} does not serve: {error}{self._log_note()}") from error

    def _start(self, serving: int) -> None:
        supervisor = Path(__file__).with_name("supervisor.py")
        users, log = self._directory / "users.lock", self._directory / "server.log"
        subprocess.run(
            [sys.executable, "-I", str(supervisor), str(users), str(serving), str(log), *self._command],
            pass_fds=[serving],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=True,
        )

    def _remaining_s(self) -> float:
        return self._deadline - time.monotonic()

    def _log_note(self) -> str:
        tail = self.log_tail
        return f"; the end of its log:\n{tail}" if tail else "; its log is empty"


@functools.cache
def local_server(**arguments: Any) -> LocalServer:
    """This process's share in a server, kept until the process ends; the same for the same arguments.

    So that they can be compared, `args` must be a tuple here.
    """
    return LocalServer(**arguments)


def _shared_directory(asked: object) -> Path:
    """A directory that only this user may enter, of the same name in every process that asks for the same server."""
    parent = Path(tempfile.gettempdir()) / f"tasnif-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    entry = parent.lstat()
    if not stat.S_ISDIR(entry.st_mode) or entry.st_uid != os.getuid() or entry.st_mode & 0o077:
        raise ServerStartError(f"{parent} is not a directory of this user alone; give another one as directory=…")
    return parent / hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
