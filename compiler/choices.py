"""What `onnxsmith tune` measured, put to use: a target whose kernels and session options are this machine's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler import tuned
from onnxsmith.compiler.machine import this_machine
from onnxsmith.compiler.target import Target
from onnxsmith.compiler.tuned import Tuned
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.lower.kernels import Measured

_TUNED = "cpu"  # the target that tuning measures


@dataclass(frozen=True)
class Choices:
    """A target as this machine wants it, and which of its decisions were measured.

    ``session`` are the config entries that tuning added to the target's own.
    """

    target: Target
    tuned: Tuned | None = None
    measured: Measured = field(default_factory=lambda: Measured({}))
    session: Mapping[str, str] = field(default_factory=dict)

    def remarks(self) -> list[Remark]:
        """How much was decided by measurement, and why a file of results was passed over."""
        told = []
        if self.tuned is not None and self.tuned.problem:
            told.append(self.tuned.problem)
        if self.measured.decided or self.session:
            counts = f"{len(self.measured.decided)} kernel choices and {len(self.session)} session options"
            told.append(f"{counts} as measured on this machine")
        return [Remark("analysis", "tuned", "", reason=text) for text in told]

    def to_json(self) -> dict[str, Any]:
        """For the manifest: the machine, and what was decided there; empty where the shipped table decided all."""
        if self.tuned is None or not (self.measured.decided or self.session):
            return {}
        kernels = [
            {"operator": operator, "site": shapes, "chosen": found.faster, **asdict(found)}
            for (operator, shapes), found in self.measured.decided.items()
        ]
        return {"machine": asdict(self.tuned.machine), "kernels": kernels, "session": dict(self.session)}


def choose(target: Target, load: Callable[[], ir.Model], precision: str, threads: int | None = None) -> Choices:
    """The target with what was measured on this machine, at that many threads (None: what ONNX Runtime takes).

    ``load`` gives the source as it is: session options belong to its architecture in this precision.
    """
    if target.kernels is None or target.name != _TUNED:
        return Choices(target)
    found = tuned.read(this_machine(threads))
    measured = found.measured()
    session = found.sessions.get(tuned.architecture(load(), precision), {}) if any(found.sessions.values()) else {}
    here = replace(target, kernels=replace(target.kernels, measured=measured), session={**target.session, **session})
    return Choices(here, found, measured, session)
