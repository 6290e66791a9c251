"""deploy/Containerfile passes its linter, and what its last stage copies runs alone in an empty root. Run by .ci/run
after a release build:

    python -m pytest tests/python
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from test_server import BINARY, ROOT

CONTAINERFILE = ROOT / "deploy/Containerfile"
TEXT = CONTAINERFILE.read_text(encoding="utf-8")
# Those of gcr.io/distroless/cc that Rust may link to.
LIBRARIES = {"libc", "libdl", "libgcc_s", "libm", "libpthread", "librt", "ld-linux-x86-64", "ld-linux-aarch64"}


class Image:
    """What the container file makes."""

    def __init__(self):
        parsed = DockerfileParser(fileobj=io.BytesIO(TEXT.encode()))
        steps = [(step["instruction"], step["value"]) for step in parsed.structure]
        self.bases = parsed.parent_images
        self.envs = dict(parsed.envs)
        copies = [value.split() for name, value in steps if name == "COPY"]
        self.copied = {source for step in copies if step[0] != "--from=build" for source in step[:-1]}
        start = max(n for n, (name, _) in enumerate(steps) if name == "FROM")
        self.last_stage = steps[start:]
        self.directory = self.value("WORKDIR")
        self.user = tuple(map(int, self.value("USER").split(":")))
        self.ports = set(map(int, self.value("EXPOSE").split()))
        self.entry = json.loads(self.value("ENTRYPOINT"))
        self.command = json.loads(self.value("CMD"))

    def value(self, instruction):
        """What the last stage says once."""
        (value,) = [value for name, value in self.last_stage if name == instruction]
        return value

    def place(self, root):
        """Puts what the last stage copies below `root`."""
        for name, value in self.last_stage:
            if name != "COPY":
                continue
            *sources, target = value.split()
            source = Path(BINARY) if sources[0] == "--from=build" else ROOT / sources[0]
            place = root / self.directory.lstrip("/") / target
            if target.endswith("/"):
                place /= Path(sources[-1]).name
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place)


def lint(text):
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-color", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def test_the_container_file_passes_its_linter():
    linted = lint(TEXT)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("COPY LICENSE", "ADD LICENSE"), ("WORKDIR /src", "WORKDIR src"), ("USER", "USR")],
)
def test_the_linter_refuses_what_is_wrong(right, wrong):
    assert right in TEXT and lint(TEXT.replace(right, wrong)).returncode != 0


def test_what_is_copied_reaches_the_builder_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = Image().copied
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_everything_that_the_binary_is_built_from_is_copied():
    """By what cargo notes beside the binary."""
    repository = Path(BINARY).parents[2]
    files = Path(f"{BINARY}.d").read_text(encoding="utf-8").partition(": ")[2].split()
    needed = {Path(file).relative_to(repository).parts[0] for file in files} - {"target"}
    assert needed and needed <= Image().copied


def libraries():
    """The paths of the libraries that the binary loads."""
    lines = subprocess.run(["ldd", str(BINARY)], check=True, capture_output=True, text=True).stdout.splitlines()
    found = [re.search(r"(/\S+) \(0x", line) for line in lines]
    return [Path(match.group(1)) for match in found if match]


def test_the_binary_needs_no_library_that_the_runtime_has_not():
    names = {re.split(r"\.so", library.name)[0] for library in libraries()}
    assert names and names <= LIBRARIES


def test_the_builder_is_new_enough_and_its_libraries_are_the_runtimes():
    builder, runtime = Image().bases
    minimum = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["package"]["rust-version"]
    rust = re.search(r"/rust:([\d.]+)-bookworm$", builder).group(1)
    assert [int(part) for part in rust.split(".")] >= [int(part) for part in minimum.split(".")]
    assert "-debian12:" in runtime  # bookworm


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root")
def test_what_is_copied_runs_alone(tmp_path):
    """In a root that has the C library and what the image copies, as its user, under its variables."""
    image = Image()
    root = tmp_path / "root"
    for library in libraries():
        place = root / library.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    image.place(root)

    def enter():
        user, group = image.user
        os.chroot(root)
        os.chdir(image.directory)
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)

    def run(*arguments, **variables):
        command, environment = [*image.entry, *arguments], {**image.envs, **variables}
        return subprocess.run(command, env=environment, preexec_fn=enter, capture_output=True, text=True)

    # Nobody listens to the world by default.
    refused = run(*image.command, "--check")
    assert refused.returncode == 2 and "allow_plaintext" in refused.stderr
    checked = run(*image.command, "--check", TASNIF_SERVER_ALLOW_PLAINTEXT="true")
    assert checked.returncode == 0, checked.stderr
    settings = tomllib.loads(checked.stdout)
    listen = [settings["server"]["listen"], settings["monitoring"]["listen"]]
    assert {int(address.rsplit(":", 1)[1]) for address in listen} == image.ports
    answered = run("classify", "--text", "فاز الفريق بالمباراة")
    assert answered.returncode == 0 and json.loads(answered.stdout), answered.stderr
