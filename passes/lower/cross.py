"""Attention over a source whose keys and values come with their heads apart: read as they are, and never laid out anew.

    Attention(q, packed(k), packed(v), mask)  ->  MultiHeadAttention(q, k, v, mask)    with k and v [B, H, R, D]

The standard operator takes queries, keys and values of one rank, this kernel does not. In a decoder's step there is one
query, and laying out the source's keys and values would take longer than attending to them. Source: ONNX Runtime's
contrib operator MultiHeadAttention.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import same_dtype
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lower import heads
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels

_TURN = [0, 2, 1, 3]


def _pattern(masked: bool) -> Any:
    def pattern(op: Any, q: Any, k: Any, v: Any, k_packed: Any, v_packed: Any, mask: Any) -> Any:
        keys = op.Reshape(op.Transpose(k, perm=_TURN), k_packed)
        values = op.Reshape(op.Transpose(v, perm=_TURN), v_packed)
        return heads.attention(op, (q, keys, values), mask, masked)

    return pattern


def _apart(m: Match) -> Mismatch | None:
    """k and v [B, H, R, D], with the heads that the attention is told of; an equal number of queries'."""
    count = m.attribute("q_num_heads")
    for name in ("k", "v"):
        found = dims(m[name]) or [None]
        if len(found) != 4 or found[1] != count or not isinstance(found[3], int):
            return Mismatch("shape", f"{name} of {count} heads apart", m[name], m[name])
    return None


def _cross(op: Builder, m: Match) -> ir.Value:
    made = op.MultiHeadAttention(m["q"], m["k"], m["v"], None, None, heads.bias(m), **heads.told(m))
    return heads.annotated(m, made)


def _whole(m: Match) -> Mismatch | None:
    return Mismatch("mask", "keys of another text", m.get("mask"), m.root) if heads.is_causal(m) else None


def rules(kernels: Kernels) -> list[Rule]:
    """At any cost of the kernel's own: one of laying out keys and values is saved, which costs more."""

    def has_kernel(m: Match) -> Mismatch | None:
        if kernels.has(MICROSOFT, "MultiHeadAttention", m["q"].dtype):
            return None
        return Mismatch("kernel", f"a {kernels.target} kernel of MultiHeadAttention", m["q"], m["q"])

    where = (
        same_dtype("q", "k", "v"),
        heads.packed,
        _apart,
        _whole,
        heads.bias_fits,
        has_kernel,
    )
    return [Rule("cross-attention", _pattern(masked), _cross, where) for masked in (True, False)]
