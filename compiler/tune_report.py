"""What tuning found, as data: the command line prints it, ``--json`` gives it to scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxsmith.compiler.machine import Machine
from onnxsmith.compiler.tuned import Timing
from onnxsmith.passes.lower.kernels import Interval


@dataclass(frozen=True)
class Finding:
    """An operator that could replace others at ``count`` sites, its timings, and what they say together.

    ``rule`` is the one that would put it there, ``shapes`` the sites' shape class.
    """

    operator: str
    rule: str
    shapes: str
    count: int
    timings: tuple[Timing, ...]
    overall: Interval

    @property
    def winner(self) -> str:
        """The operator, or "as it is"; "the table's choice" where the interval holds 1."""
        if self.overall.faster:
            return self.operator
        return "as it is" if self.overall.slower else "the table's choice"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "winner": self.winner}


@dataclass(frozen=True)
class Option:
    """A session config entry, on the whole model, against the same session without it."""

    key: str
    value: str
    overall: Interval

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "kept": self.overall.faster}


@dataclass(frozen=True)
class TuneReport:
    """What was measured, what of it is kept, and where.

    ``whole`` is the model lowered by the winners against the one that the shipped table makes; None where they are
    the same. Where it is slower nothing of the sites is ``kept``. ``session`` are the config entries that are.
    """

    machine: Machine
    findings: list[Finding]
    whole: Interval | None
    options: list[Option]
    session: Mapping[str, str]
    path: Path

    @property
    def kept(self) -> bool:
        return self.whole is None or not self.whole.slower

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": asdict(self.machine),
            "sites": [finding.to_json() for finding in self.findings],
            "whole": asdict(self.whole) if self.whole else None,
            "kept": self.kept,
            "options": [option.to_json() for option in self.options],
            "session": dict(self.session),
            "path": str(self.path),
        }
