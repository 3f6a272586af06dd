"""Attention over split heads becomes Attention over packed ones.

    x [B, S, H*D] ─ reshape [B, S, H, D] ─ transpose [B, H, S, D] ─ Attention ─ transpose ─ reshape [B, S, H*Dv]

The operator splits and merges the heads itself when it is given three dimensions and the number of heads (ONNX
operator specification, Attention-23), which saves four transposes a layer.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr, either
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.shapes import product, sizes

_SPLIT = [0, 2, 1, 3]


def _pattern(op: Any, q: Any, k: Any, v: Any, q_to: Any, k_to: Any, v_to: Any, mask: Any, merged: Any) -> Any:
    heads = [op.Transpose(op.Reshape(x, to), perm=_SPLIT) for x, to in ((q, q_to), (k, k_to), (v, v_to))]
    told = {"scale": attr("scale"), "is_causal": attr("is_causal"), "softcap": attr("softcap")}
    attention = either("mask", given=op.Attention(*heads, mask, **told), none=op.Attention(*heads, **told))
    return op.Reshape(op.Transpose(attention, perm=_SPLIT), merged)


def _last_split(m: Match) -> Mismatch | None:
    """Each reshape splits or merges the last dimension alone, into a known number of heads."""
    for name in ("q", "k", "v"):
        packed, split = sizes(m[name]), sizes(_split_of(m, name))
        if packed is None or split is None or len(packed) != 3:
            return Mismatch("rank", f"{name} [B, S, H*D] split into [B, S, H, D]", m[name], m[name])
        if packed[:2] != split[:2] or split[2].known is None or product(split[2:]) != packed[2]:
            return Mismatch("shape", f"{name} split into heads along its last dimension", m[name], m[name])
    before, after = sizes(m.root.inputs[0]), sizes(m.root.outputs[0])
    if before is None or after is None or len(after) != 3 or before[:2] != after[:2]:
        return Mismatch("shape", "heads merged into the last dimension", m.root.outputs[0], m.root)
    return None


def _split_of(m: Match, name: str) -> ir.Value:
    target = m[f"{name}_to"]
    return next(n.outputs[0] for n in m.nodes.values() if n.op_type == "Reshape" and n.inputs == (m[name], target))


def _heads(m: Match, name: str) -> int:
    split = dims(_split_of(m, name))
    assert split is not None and isinstance(split[2], int)
    return split[2]


def _packed(op: Builder, m: Match) -> ir.Value:
    return op.Attention(
        m["q"],
        m["k"],
        m["v"],
        m.get("mask"),
        q_num_heads=_heads(m, "q"),
        kv_num_heads=_heads(m, "k"),
        scale=m.attribute("scale"),
        is_causal=m.attribute("is_causal") or None,
        softcap=m.attribute("softcap") or None,
    )


RULES = [Rule("attention-heads", _pattern, _packed, (_last_split,))]
