"""The machine that a measurement holds for: another one, or another ONNX Runtime, may choose otherwise."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnxsmith.runtime.bandwidth import logical_cores

# Those for which ONNX Runtime has kernels of their own.
_SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "i8mm", "sve")
_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class Machine:
    """``threads`` are those inside an operator; a session takes one for each of the ``cores`` unless told otherwise."""

    processor: str
    instruction_sets: tuple[str, ...]
    cores: int
    onnxruntime: str
    threads: int

    @property
    def key(self) -> str:
        """A short name for files: the same for the same machine."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.processor}, {self.threads} of {self.cores} cores, ONNX Runtime {self.onnxruntime}"


def this_machine(threads: int | None = None) -> Machine:
    """The machine at hand; ``threads`` None is what ONNX Runtime takes by itself."""
    flags = set(_first("flags").split() or _first("Features").split())
    processor = _first("model name") or platform.processor() or platform.machine()
    sets = tuple(name for name in _SETS if name in flags)
    cores = _physical_cores()
    return Machine(processor, sets, cores, onnxruntime_version(), threads or cores)


def _physical_cores() -> int:
    """Physical cores that this process may use; logical ones where the system does not tell."""
    logical = logical_cores()
    pairs = set(zip(_all("physical id"), _all("core id"), strict=False))
    return min(len(pairs) or logical, logical)


def onnxruntime_version() -> str:
    """The version, without importing it; the build for GPUs goes by another name."""
    for package in _PACKAGES:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "none"


def _first(key: str) -> str:
    return next(iter(_all(key)), "")


def _all(key: str) -> list[str]:
    """The values of a key in Linux's /proc/cpuinfo; none on another system."""
    path = Path("/proc/cpuinfo")
    pairs = [line.partition(":") for line in path.read_text().splitlines()] if path.exists() else []
    return [value.strip() for name, _, value in pairs if name.strip() == key]
