"""What the figures were measured on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ["onnxruntime", "openvino", "nncf", "torch", "ctranslate2", "transformers", "onnx", "numpy"]
NOTED_FLAGS = ["avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"]


def cpu_info():
    """The fields of the first processor."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def cpu_flags():
    return set(cpu_info().get("flags", "").split())


def cpus(count):
    """That many of the CPUs allowed, each on a core of its own as long as there are cores."""
    seen, first, second = set(), [], []
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = siblings.read_text().strip() if siblings.exists() else cpu
        (second if core in seen else first).append(cpu)
        seen.add(core)
    return (first + second)[:count]


def facts():
    info = cpu_info()
    flags = cpu_flags()
    return {
        "cpu": info.get("model name", platform.processor()),
        "family_model": f"{info.get('cpu family')}/{info.get('model')}",
        "cpus_allowed": len(os.sched_getaffinity(0)),
        "cpus_used": cpus(len(os.sched_getaffinity(0))),
        "flags": [flag for flag in NOTED_FLAGS if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def commit(repository: Path):
    """Of the checkout; marked where files differ from it."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=repository, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or "unknown"
