"""Servers that processes of a machine share."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import BINARY, LIMIT_S, MODEL, article

from tasnif import Client, LocalServer, Retry, ServerStartError

USER = textwrap.dedent(
    """
    import sys
    from tasnif import Client, LocalServer
    directory, binary, model = sys.argv[1:]
    server = LocalServer(binary=binary, model=model, directory=directory)
    with Client(server.target) as client:
        assert client.classify("المنتخب يفوز").tasks
    print("ready", flush=True)
    sys.stdin.read()
    """
)


def user(directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", USER, str(directory), str(BINARY), str(MODEL)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def is_ready(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "ready\n"


def server_processes(directory: Path) -> list[int]:
    """The processes of `tasnif serve` that listen in the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if command[0] == bytes(BINARY) and f"unix:{directory}/server.sock".encode() in command:
            found.append(int(entry.parent.name))
    return found


def wait_until_nothing_serves(directory: Path) -> None:
    """The lock is free once the server and its supervisor are gone."""
    deadline = time.monotonic() + LIMIT_S
    with open(directory / "serving.lock", "w", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "the server does not end"
                time.sleep(0.05)
    assert server_processes(directory) == []


def test_users_share_a_server_that_ends_with_the_last_however_they_end(tmp_path: Path) -> None:
    users = [user(tmp_path) for _ in range(3)]
    assert all(map(is_ready, users))
    assert len(server_processes(tmp_path)) == 1
    first, second, third = users
    first.kill()
    first.wait(LIMIT_S)
    second.communicate("", LIMIT_S)
    (process,) = server_processes(tmp_path)
    assert process
    third.kill()
    third.wait(LIMIT_S)
    wait_until_nothing_serves(tmp_path)
    # And there is a new one for who comes next.
    last = user(tmp_path)
    assert is_ready(last)
    last.communicate("", LIMIT_S)
    wait_until_nothing_serves(tmp_path)


def test_the_same_words_elsewhere_are_another_model(tmp_path: Path) -> None:
    script = "import sys; from tasnif import LocalServer; print(LocalServer(binary=sys.argv[1], model='news').target)"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    targets = []
    for name in ("here", "there", "here"):
        (tmp_path / name).mkdir(exist_ok=True)
        if not (tmp_path / name / "news").exists():
            (tmp_path / name / "news").symlink_to(MODEL)
        command = [sys.executable, "-c", script, str(BINARY)]
        run = subprocess.run(command, cwd=tmp_path / name, env=environment, capture_output=True, text=True, check=True)
        targets.append(run.stdout)
    assert targets[0] == targets[2] != targets[1]


def test_a_server_that_crashes_is_started_again(tmp_path: Path) -> None:
    with (
        LocalServer(binary=BINARY, model=MODEL, directory=tmp_path) as server,
        Client(server.target, retry=Retry(max_attempts=20)) as client,
    ):
        assert client.classify(article(1)).tasks
        (before,) = server_processes(tmp_path)
        os.kill(before, signal.SIGKILL)
        assert client.classify(article(2)).tasks
        (after,) = server_processes(tmp_path)
        assert after != before and "started again" in server.log_tail
    wait_until_nothing_serves(tmp_path)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match="nowhere"):
        LocalServer(binary=BINARY, model=tmp_path / "nowhere", directory=tmp_path)
    wait_until_nothing_serves(tmp_path)
    with pytest.raises(ServerStartError, match="there is no tasnif"):
        LocalServer(binary=tmp_path / "nothing", directory=tmp_path)


def test_a_server_that_does_not_get_ready_is_given_up(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text('#!/bin/sh\necho "reading for ever" >&2\nexec sleep 600\n', encoding="utf-8")
    silent.chmod(0o700)
    with pytest.raises(ServerStartError, match=r"does not serve[^$]*reading for ever"):
        LocalServer(binary=silent, directory=tmp_path, start_timeout_s=2)
    wait_until_nothing_serves(tmp_path)
