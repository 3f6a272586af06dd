"""Attention that an exporter already emitted, with its mask in a shape that ONNX Runtime takes.

The operator's specification broadcasts a mask [B, 1, 1, T]; ONNX Runtime's CPU kernel refuses it and wants all of
[S, T]. Expanding it changes nothing but the acceptance.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lift.mask_input import expand

_KEPT = ("scale", "is_causal", "softcap", "q_num_heads", "kv_num_heads")


def _attention(op: Any, q: Any, k: Any, v: Any, mask: Any) -> Any:
    return op.Attention(q, k, v, mask, **{name: attr(name) for name in _KEPT})


def _one_row(m: Match) -> Mismatch | None:
    found = dims(m["mask"])
    if found is None or len(found) not in (2, 4):
        return Mismatch("rank", "a mask of 2 or 4 dimensions", m["mask"], m["mask"])
    if found[-2] == 1 and dims(m["q"]) is not None and dims(m["q"])[-2] != 1:  # type: ignore[index]
        return None
    return Mismatch("shape", "a mask with one row for all queries", m["mask"], m["mask"])


def _widened(op: Builder, m: Match) -> ir.Value:
    mask = expand(op, m["mask"], m["q"], -2, m["k"], -2)
    kept = {name: m.attribute(name) or None for name in _KEPT}
    return op.Attention(m["q"], m["k"], m["v"], mask, **kept)


RULES = [Rule("attention-mask", _attention, _widened, (_one_row,))]
