"""RotaryEmbedding that an exporter already emitted, with one row of angles for all sequences of a batch.

The operator's specification wants caches [B, S, R/2], or position ids [B, S] into caches of two dimensions; exporters
give it a batch of 1, and ONNX Runtime's kernel refuses that. Expanding it changes nothing but the acceptance.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lift.mask_input import length

_KEPT = ("interleaved", "num_heads", "rotary_embedding_dim")


def _caches(op: Any, x: Any, cos: Any, sin: Any) -> Any:
    return op.RotaryEmbedding(x, cos, sin, **{name: attr(name) for name in _KEPT})


def _positions(op: Any, x: Any, cos: Any, sin: Any, positions: Any) -> Any:
    return op.RotaryEmbedding(x, cos, sin, positions, **{name: attr(name) for name in _KEPT})


def _one_sequence(*names: str) -> Requirement:
    """The named values are for a batch of one, and x is not."""

    def check(m: Match) -> Mismatch | None:
        for name in names:
            if (dims(m[name]) or [None])[0] != 1:
                return Mismatch("shape", f"{name} for a batch of 1", m[name], m[name])
        if (batch := (dims(m["x"]) or [1])[0]) == 1 or batch is None:
            return Mismatch("shape", "x [B, ...] with a known B that is not 1", m["x"], m["x"])
        return None

    return check


def _widened(op: Builder, v: ir.Value, x: ir.Value) -> ir.Value:
    """A value [1, ...] for all sequences of x [B, ...]."""
    rest = len(dims(v) or ()) - 1
    return op.Expand(v, op.Concat(length(op, x, 0), op.constant([1] * rest, "ones", "int64"), axis=0))


def _with_caches(op: Builder, m: Match) -> ir.Value:
    x = m["x"]
    return op.RotaryEmbedding(x, _widened(op, m["cos"], x), _widened(op, m["sin"], x), **_attributes(m))


def _with_positions(op: Builder, m: Match) -> ir.Value:
    return op.RotaryEmbedding(m["x"], m["cos"], m["sin"], _widened(op, m["positions"], m["x"]), **_attributes(m))


def _attributes(m: Match) -> dict[str, Any]:
    return {name: m.attribute(name) or None for name in _KEPT}


RULES = [
    Rule("rotary-cache", _caches, _with_caches, (_one_sequence("cos", "sin"),)),
    Rule("rotary-positions", _positions, _with_positions, (_one_sequence("positions"),)),
]
