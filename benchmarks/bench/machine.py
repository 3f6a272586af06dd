"""The machine that a number belongs to."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.bench.engines import PEERS
from onnxsmith.compiler.machine import this_machine
from onnxsmith.runtime.measure import elapsed

_PEERS = ("onnxruntime", "onnxscript", "torch", "transformers", "openvino", "nncf", "ctranslate2")
_OURS = ("onnx", "onnx-ir", "onnxscript", "numpy")
_ASK = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def describe(threads: int) -> dict[str, Any]:
    """Processor, cores, instruction sets, threads, and the versions in both environments."""
    asked = subprocess.run([PEERS, "-c", _ASK, *_PEERS], capture_output=True, text=True, check=True)
    found = asdict(this_machine(threads))
    runtime = found.pop("onnxruntime")
    return {
        **found,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"onnxruntime": runtime, **{name: version(name) for name in _OURS}},
        "peers": json.loads(asked.stdout),
    }


def read_gigabytes(threads: int) -> float:
    """GB/s at which the machine reads memory: threads summing 256 MB each, the best of five."""
    from concurrent.futures import ThreadPoolExecutor

    parts = np.ones((threads, 1 << 25), np.float64)
    with ThreadPoolExecutor(threads) as pool:
        best = min(elapsed(lambda: list(pool.map(np.max, parts))) for _ in range(5))
    return round(parts.nbytes / best / 1e9, 1)
