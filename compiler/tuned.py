"""What `onnxsmith tune` measured, kept for each machine: read before a model is lowered, written when tuning ends.

    <cache>/tuned/<machine>.json    {"format", "machine", "sites": {operator: {shape class: [..]}}, "sessions": {..}}

The folder is ONNXSMITH_CACHE, else onnxsmith in XDG_CACHE_HOME, else ~/.cache/onnxsmith. Nothing in it is needed: a
file that cannot be read is passed over with a word, and the shipped table decides.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler.atomic import replacing
from onnxsmith.compiler.machine import Machine
from onnxsmith.errors import BadInput
from onnxsmith.passes.lower.kernels import Interval, Measured, Site
from onnxsmith.runtime.options import steers

CACHE_VARIABLE = "ONNXSMITH_CACHE"
_FORMAT = 1


@dataclass(frozen=True)
class Timing:
    """An operator against what it replaces at one set of sizes: microseconds, and their ratio with its interval."""

    sizes: Mapping[str, int]
    before_us: float
    after_us: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Tuned:
    """All that is known of one machine.

    ``sites`` has the timings of each site, ``sessions`` session config entries by :func:`architecture` of the model
    that they were measured on. ``problem`` says why a file was passed over.
    """

    machine: Machine
    sites: Mapping[Site, Sequence[Timing]] = field(default_factory=dict)
    sessions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    problem: str = ""

    def measured(self) -> Measured:
        """One interval for each site: a model of open sizes gets one operator for all of the sizes."""
        return Measured({site: overall(timings) for site, timings in self.sites.items()})

    def with_results(
        self, sites: Mapping[Site, Sequence[Timing]], architecture: str, session: Mapping[str, str]
    ) -> Tuned:
        """New results take the place of older ones of the same sites, and of the same architecture."""
        sessions = {**self.sessions, architecture: dict(session)}
        return Tuned(self.machine, {**self.sites, **sites}, sessions)


def overall(timings: Sequence[Timing]) -> Interval:
    """The geometric mean over sizes. The bounds' means bound the mean, with more than their own confidence."""
    logs = [[math.log(value) for value in (t.ratio, t.low, t.high)] for t in timings]
    return Interval(*(math.exp(sum(column) / len(column)) for column in zip(*logs, strict=True)))


def architecture(model: ir.Model, precision: str) -> str:
    """One name for models that differ in their weights alone: their operators, and the shapes of their constants."""
    operators = Counter(f"{n.domain}.{n.op_type}" for n in model.graph.all_nodes())
    shapes = Counter(str(v.shape) for v in model.graph.initializers.values())
    text = json.dumps([precision, sorted(operators.items()), sorted(shapes.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Where the results are kept; the folder need not exist."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "onnxsmith"


def read(machine: Machine) -> Tuned:
    """What is known of the machine; nothing where nothing was measured, or where the file cannot be used."""
    path = _path(machine)
    try:
        return _parsed(json.loads(path.read_bytes()), machine)
    except FileNotFoundError:
        return Tuned(machine)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        return Tuned(machine, problem=f"{path} cannot be used ({reason}) and is passed over; tune again to replace it")


def write(tuned: Tuned) -> Path:
    """Put the results in place at one stroke. Returns where. Raises BadInput when the disk refuses."""
    path = _path(tuned.machine)
    sites: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for (operator, shape_class), timings in tuned.sites.items():
        sites.setdefault(operator, {})[shape_class] = [asdict(timing) for timing in timings]
    sessions = {name: dict(config) for name, config in tuned.sessions.items()}
    record = {"format": _FORMAT, "machine": asdict(tuned.machine), "sites": sites, "sessions": sessions}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as made:
            made.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}; set {CACHE_VARIABLE} to a folder") from error
    return path


def _path(machine: Machine) -> Path:
    return cache_folder() / "tuned" / f"{machine.key}.json"


def _parsed(record: Any, machine: Machine) -> Tuned:
    """Raises the errors that :func:`read` passes over for anything but what :func:`write` writes."""
    if record["format"] != _FORMAT:
        raise ValueError(f"expected format {_FORMAT}, found {record['format']!r}")
    sites = {
        (str(operator), str(shape_class)): [_timing(timing) for timing in timings]
        for operator, classes in record["sites"].items()
        for shape_class, timings in classes.items()
        if timings
    }
    sessions = {str(name): _session(config) for name, config in record["sessions"].items()}
    return Tuned(machine, sites, sessions)


def _timing(record: Mapping[str, Any]) -> Timing:
    sizes = {str(name): int(size) for name, size in record["sizes"].items()}
    numbers = [float(record[name]) for name in ("before_us", "after_us", "ratio", "low", "high")]
    if not all(0 < number < math.inf for number in numbers):
        raise ValueError("expected times and ratios above 0")
    return Timing(sizes, *numbers)


def _session(config: Mapping[str, str]) -> dict[str, str]:
    entries = {str(key): str(value) for key, value in config.items()}
    if unknown := [key for key in entries if not steers(key)]:
        raise ValueError(f"{unknown[0]!r} is no session option that onnxsmith sets")
    return entries
