"""The parent of a local server. `local` runs this file by its path: it needs the standard library alone.

    python -I supervisor.py USERS_LOCK SERVING_FD LOG COMMAND…

It starts COMMAND, and again if it crashes, and stops it once nobody holds a lock on the file USERS_LOCK. The kernel
releases a lock when its holder ends, however that happens, so a killed user is no user. The inherited descriptor
SERVING_FD is locked for as long as this process lives, which says that the server is somebody's care.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

STOP_LIMIT_S = 60.0
RESTART_AFTER_S = 1.0
MAX_QUICK_CRASHES = 3
QUICK_S = 60.0
# The command line is wrong, a model cannot be loaded, the address cannot be listened on: it would be the same again.
LASTING_FAILURES = (2, 3, 4)
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Server:
    """The server's process, and whether it should still run."""

    def __init__(self, command: Sequence[str], log: int) -> None:
        self._command = command
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = False

    def run(self) -> None:
        """Runs the server until it is stopped or will not come back."""
        crashes = 0
        while True:
            started = time.monotonic()
            with self._lock:
                if self._is_stopping:
                    return
                # The thread that starts it is the one that ends last.
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    preexec_fn=end_with_parent,  # noqa: PLW1509 (one system call, no lock)
                )
            code = self._process.wait()
            crashes = crashes + 1 if time.monotonic() - started < QUICK_S else 1
            if self._is_stopping or code in LASTING_FAILURES or crashes > MAX_QUICK_CRASHES:
                return
            os.write(self._log, f"supervisor: the server ended with {code}; it is started again\n".encode())
            time.sleep(RESTART_AFTER_S)

    def stop(self) -> None:
        """Ends the server, by force if it takes too long."""
        with self._lock:
            self._is_stopping = True
            if self._process is None:
                return
            self._process.terminate()
            try:
                self._process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()


def end_with_parent() -> None:
    """Has the server end with the supervisor, where the system can do that."""
    if hasattr(LIBC, "prctl"):
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(users_lock: str, serving_fd: str, log: str, *command: str) -> None:
    """Detaches, and runs the server for its users."""
    # As a child of its first user it would end with it: Ray, for one, kills the children of an actor.
    if os.fork():
        os._exit(0)
    os.set_inheritable(int(serving_fd), False)
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    server = Server(command, log_fd)
    users = os.open(users_lock, os.O_RDWR)

    def stop_after_the_last_user() -> None:
        fcntl.flock(users, fcntl.LOCK_EX)  # held to the end: who comes now waits, and then starts a server anew
        server.stop()

    threading.Thread(target=stop_after_the_last_user, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
