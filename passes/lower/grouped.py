"""Attention with fewer heads of keys than of queries becomes GroupQueryAttention, which never repeats keys and values.

Only under a mask that is causal and nothing else: the kernel takes padding as lengths on the right alone, and an
additive bias keeps it from its fused implementations. Source: Ainslie et al. 2023, arXiv:2305.13245; ONNX Runtime's
contrib operator GroupQueryAttention.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import same_dtype
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lower import heads
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels


def _pattern(masked: bool) -> Any:
    def pattern(op: Any, q: Any, k: Any, v: Any, mask: Any) -> Any:
        return heads.attention(op, (q, k, v), mask, masked)

    return pattern


def _grouped_heads(m: Match) -> Mismatch | None:
    queries, keys = m.attribute("q_num_heads"), m.attribute("kv_num_heads")
    if queries and keys and keys < queries:
        return None
    return Mismatch("attribute", f"fewer than {queries} heads of keys", f"{keys} heads", m.root)


def _only_causal(m: Match) -> Mismatch | None:
    if heads.bias(m) is None and heads.is_causal(m):
        return None
    return Mismatch("mask", "a mask that is causal and nothing else", m.get("mask"), m.root)


def _head_sizes(m: Match) -> Mismatch | None:
    """Values as wide as keys, in heads of a size that the kernel takes."""
    q, k, v = (dims(m[name]) or [None] for name in ("q", "k", "v"))
    size = q[-1] // m.attribute("q_num_heads") if isinstance(q[-1], int) else 1
    if k[-1] == v[-1] and size % heads.HEAD_MULTIPLE == 0:
        return None
    return Mismatch("shape", f"heads of one size that is a multiple of {heads.HEAD_MULTIPLE}", m["q"], m["q"])


def _grouped(op: Builder, m: Match) -> ir.Value:
    """Without a cache all keys are new: S in total, and the last of every row is at S - 1."""
    q = m["q"]
    length = op.Cast(op.Shape(q, start=1, end=2), to=ir.DataType.INT32)
    last = op.Sub(length, op.constant([1], "one", np.int32))
    rows = op.Expand(last, op.Shape(q, start=0, end=1))
    inputs = (q, m["k"], m["v"], None, None, rows, op.Squeeze(length))
    made = op.several("GroupQueryAttention", 3, *inputs, kv_num_heads=m.attribute("kv_num_heads"), **heads.told(m))
    return heads.annotated(m, made[0])


def rules(kernels: Kernels) -> list[Rule]:
    where = (
        same_dtype("q", "k", "v"),
        _grouped_heads,
        heads.packed,
        _only_causal,
        _head_sizes,
        kernels.runs(MICROSOFT, "GroupQueryAttention", "q"),
    )
    return [Rule("group-query-attention", _pattern(masked), _grouped, where) for masked in (True, False)]
