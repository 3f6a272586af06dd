"""The machine that a number belongs to."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.bench.engines import PEERS
from onnxsmith.compiler.machine import this_machine
from onnxsmith.runtime.bandwidth import read_bandwidth

_PEERS = ("onnxruntime", "onnxscript", "torch", "transformers", "openvino", "nncf", "ctranslate2")
_OURS = ("onnx", "onnx-ir", "onnxscript", "numpy")
_ASK = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def describe(threads: int, peers: Path = PEERS, names: Sequence[str] = _PEERS) -> dict[str, Any]:
    """Processor, cores, instruction sets, threads, and the versions in both environments; ``peers`` is a Python."""
    asked = subprocess.run([peers, "-c", _ASK, *names], capture_output=True, text=True, check=True)
    found = asdict(this_machine(threads))
    runtime = found.pop("onnxruntime")
    return {
        **found,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"onnxruntime": runtime, **{name: version(name) for name in _OURS}},
        "peers": json.loads(asked.stdout),
    }


def read_gigabytes(threads: int) -> float:
    """GB/s at which the machine reads memory."""
    return round(read_bandwidth(threads) / 1e9, 1)
