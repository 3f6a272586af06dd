"""Does it still fail, and in the same way? A model, or a part of one, is run as its user would: by ONNX Runtime.

A failure is that the runtime crashes, hangs, refuses the model, raises on the inputs, or computes something else.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.reference import Reference
from onnxsmith.runtime.child import MODEL, Ran, Setup, run_in_child
from onnxsmith.runtime.parity import RMS_LIMIT, ErrorRatio, error_ratio

Values = Mapping[str, NDArray[Any]]
FAR = 1e-3  # relative RMS error of a float32 result that no rounding explains
_PLAIN = Setup(optimize=False)
_OF_A_FILE = re.compile(r"Load model from \S* failed:\s*")  # a temporary one
# What differs between two reports of one fault: the names of values and nodes, numbers, and files.
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\([^()]*\)|Name:\S*|\S*/\S*|[\w.]*\d[\w.]*")


@dataclass(frozen=True)
class Failure:
    """``kind`` is one of "crashes", "hangs", "refused", "fails", "different"; ``told`` says more, on one line.

    ``limit`` is the relative RMS error from which on a result is a wrong one.
    """

    kind: str
    told: str
    limit: float = FAR

    @property
    def likeness(self) -> str:
        """Equal for failures that are the same fault at another place."""
        return self.kind if self.kind == "different" else f"{self.kind}: {_PARTICULAR.sub('', self.told)}"

    def __str__(self) -> str:
        return f"{self.kind}: {self.told}" if self.told else self.kind


def attempt(model: ir.Model, feeds: Values | None, setup: Setup = _PLAIN) -> Ran:
    """The model in a process of its own; without feeds it is only opened."""
    with tempfile.TemporaryDirectory(prefix="onnxsmith-", ignore_cleanup_errors=True) as folder:
        write_model(Path(folder, MODEL), model)
        return run_in_child(Path(folder), feeds, setup)


def broken(ran: Ran) -> Failure | None:
    """The failure of a run that gave no outputs."""
    return None if ran.kind == "fine" else Failure(ran.kind, _OF_A_FILE.sub("", " ".join(ran.message.split())))


def wrong(found: Values, own: Values, truth: Values) -> tuple[str, ErrorRatio] | None:
    """The first output that is further from the truth than ``own``, float32 as well, allows; and how far."""
    for name, value in truth.items():
        if name not in found:
            continue
        ratio = error_ratio(found[name], own.get(name, found[name]), value)
        if not ratio.fine or ratio.relative_rms > FAR:
            return name, ratio
    return None


def different(name: str, ratio: ErrorRatio) -> Failure:
    if not np.isfinite(ratio.rms):
        return Failure("different", f"{name} has another shape or other integers")
    beyond = "" if ratio.finite else ", not finite where the original is"
    told = f"{name} has a relative RMS error of {ratio.relative_rms:.2g}{beyond}"
    return Failure("different", told, min(FAR, RMS_LIMIT * ratio.relative_rms / ratio.rms))


def against_itself(model: ir.Model, feeds: Values, setup: Setup) -> Failure | None:
    """Whether the runtime computes what the graph says: against float64, and without the runtime's optimizations."""
    ran = attempt(model, feeds, setup)
    if failure := broken(ran):
        return failure
    own = attempt(model, feeds).outputs
    found = wrong(ran.outputs, own, truth_of(model, feeds, own))
    return different(*found) if found else None


def truth_of(model: ir.Model, feeds: Values, own: Values) -> Values:
    """The outputs in float64; ``own``, those of the runtime's plain operators, where only it knows one of them."""
    try:
        return Reference(model).run(feeds)
    except Exception:  # the optimizations can still be judged
        return {name: np.asarray(v, np.float64) if v.dtype == np.float32 else v for name, v in own.items()}
