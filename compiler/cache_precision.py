"""The precision of a cache: float32, or int8 where the target's attention takes that."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.engine.remark import Remark

PRECISIONS = ("fp32", "int8")
_WHY = ("kv-cache", "in-place-cache")  # the rules that tell why there is none, or none in place


def check_wanted(precision: str, target: str, *, cache: bool, calibrated: bool) -> None:
    """Raise BadUsage for a precision that there is not, or that lacks what it needs."""
    if precision not in PRECISIONS:
        raise BadUsage(f"no cache precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "fp32":
        return
    if not cache:
        raise BadUsage("cache_precision is for a model with a cache; add cache")
    if target != "cpu":
        raise BadUsage(f"a cache in int8 is appended to in place, which target {target} has no kernel for; choose cpu")
    if not calibrated:
        raise BadUsage(
            "a cache in int8 has fixed scales, and only texts like yours tell how large its keys and values get: "
            "add calibrate"
        )


def check_made(precision: str, model: ir.Model, remarks: Iterable[Remark], source: object) -> None:
    """Raise BadInput where the model was given no such cache: who asks for int8 must not be given float32."""
    cache = recorded(model)
    if precision == "fp32" or (cache is not None and cache.dtype == precision):
        return
    why = next((r.reason for r in remarks if r.rule in _WHY and r.kind == "missed"), "it has no attention to append")
    raise BadInput(f"{source}: no cache in {precision}: {why}; leave cache_precision out")
