"""The machine that a number belongs to."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench.engines import PEERS

_SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "i8mm", "sve")
_PEERS = ("onnxruntime", "onnxscript", "torch", "transformers", "openvino", "nncf", "ctranslate2")
_OURS = ("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy")
_ASK = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def describe(threads: int) -> dict[str, Any]:
    """Processor, cores, instruction sets, threads, and the versions in both environments."""
    flags = set(_line("flags").split() or _line("Features").split())
    asked = subprocess.run([PEERS, "-c", _ASK, *_PEERS], capture_output=True, text=True, check=True)
    return {
        "processor": _line("model name") or platform.processor() or platform.machine(),
        "family": f"{_line('cpu family')}.{_line('model')}.{_line('stepping')}",
        "cores": physical_cores(),
        "instruction_sets": [name for name in _SETS if name in flags],
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: _version(name) for name in _OURS},
        "peers": json.loads(asked.stdout),
    }


def physical_cores() -> int:
    """Physical cores; all logical ones where the system does not tell."""
    logical = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pairs = set(zip(_lines("physical id"), _lines("core id"), strict=False))
    return min(len(pairs) or logical, logical)


def read_gigabytes(threads: int) -> float:
    """GB/s at which the machine reads memory: threads summing 256 MB each, the best of five."""
    from concurrent.futures import ThreadPoolExecutor

    parts = np.ones((threads, 1 << 25), np.float64)
    with ThreadPoolExecutor(threads) as pool:
        best = min(_seconds(lambda: list(pool.map(np.max, parts))) for _ in range(5))
    return round(parts.nbytes / best / 1e9, 1)


def _seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _version(name: str) -> str:
    if name == "onnxruntime":  # which the GPU build installs too, under another name
        import onnxruntime

        return onnxruntime.__version__
    return version(name)


def _line(key: str) -> str:
    return next(iter(_lines(key)), "")


def _lines(key: str) -> list[str]:
    path = Path("/proc/cpuinfo")
    pairs = [line.partition(":") for line in path.read_text().splitlines()] if path.exists() else []
    return [value.strip() for name, _, value in pairs if name.strip() == key]
