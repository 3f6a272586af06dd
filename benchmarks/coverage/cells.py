"""The cells of the matrix, and where each keeps its export and its result under build/."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.coverage.exporters import EXPORTERS
from tests.coverage.families import FAMILIES, OF_THE_LIBRARY

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "coverage"
OVERLAYS = {"5": None, "4.57": ROOT / "build" / "transformers-4.57"}
X_TRANSFORMERS = ROOT / "build" / "x-transformers"
PEERS = ROOT / "benchmarks" / "results" / "coverage-peers.json"
_RECIPE = ("wrappers", "research", "batches", "exporting")


@dataclass(frozen=True)
class Group:
    """The cells that share a module: one family, one attention implementation, one version of the library."""

    family: str
    attention: str
    library: str

    @property
    def folder(self) -> Path:
        """Named by everything that the exports depend on."""
        family = FAMILIES[self.family]
        content = repr((family.build, family.inputs, family.outputs, self.attention, self.library, _recipe()))
        key = hashlib.sha256(content.encode()).hexdigest()[:12]
        return BUILD / self.library / f"{self.family}-{self.attention}-{key}"

    def exporters(self) -> list[str]:
        return [name for name, exporter in EXPORTERS.items() if exporter.takes(self.attention)]


def groups() -> Iterator[Group]:
    """Every group: all families with the installed library, those of the library with the older one too."""
    for library in OVERLAYS:
        families = FAMILIES.values() if library == "5" else OF_THE_LIBRARY
        for family in families:
            for attention in family.attention:
                yield Group(family.name, attention, library)


@cache
def _recipe() -> str:
    texts = [(ROOT / "tests" / "coverage" / f"{name}.py").read_text() for name in _RECIPE]
    return digest(*texts, *(version(name) for name in ("torch", "onnxscript", "transformers")))


@cache
def code() -> str:
    """What a result depends on: our own code, and how a cell is judged."""
    rooms = [path for room in ("compiler", "passes", "runtime") for path in sorted((ROOT / room).rglob("*.py"))]
    judges = [ROOT / "tests" / "coverage" / f"{name}.py" for name in ("cell", "accounts")]
    return digest(*(path.read_text() for path in [*rooms, *judges]))


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def result(group: Group, exporter: str) -> dict[str, Any] | None:
    """The stored result of a cell; None where there is none."""
    path = group.folder / f"{exporter}.json"
    return json.loads(path.read_text()) if path.exists() else None
