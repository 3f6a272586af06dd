"""Scaled dot-product attention written out becomes one Attention (opset 23).

    q ──────────┐
    k ─ swap ─ q·kᵀ ─ scale ─ + mask ─ softmax ─ (NaN guard) ─ ·v

Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1; ONNX operator specification, Attention-23. Shapes:
q [B, H, S, D], kᵀ [B, H, D, T], v [B, H, T, Dv], mask broadcastable to [B, H, S, T]. The mask keeps its own values,
expanded over the queries (ONNX Runtime refuses a mask of one row) and halved near the type's lowest number, so that a
row with no allowed key stays what it was: uniform, not zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import either
from onnxsmith.passes.engine.require import dtype, same_dtype, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lift.mask_input import additive, from_condition
from onnxsmith.passes.lift.scale import factor_of, scalar_factor, scaled
from onnxsmith.passes.lift.scores import for_other_softmaxes, masked_low


def _probabilities(op: Any, q: Any, kt: Any, mask: Any, scale: Any, cap: Any, kept: Any, condition: Any) -> Any:
    product = op.MatMul(q, kt)
    maybe_scaled = either("scaled", yes=scaled(op, "scaling", product, scale), no=product)
    scores = either("capped", yes=scaled(op, "capping", op.Tanh(maybe_scaled), cap), no=maybe_scaled)
    masked = either(
        "masking",
        add=op.Add(scores, mask),
        keep=op.Where(condition, scores, kept),
        drop=op.Where(condition, kept, scores),
        none=scores,
    )
    return either("axis", last=op.Softmax(masked, axis=-1), third=op.Softmax(masked, axis=3))


def _plain(op: Any, q: Any, kt: Any, v: Any, mask: Any, scale: Any, cap: Any, kept: Any, condition: Any) -> Any:
    return op.MatMul(_probabilities(op, q, kt, mask, scale, cap, kept, condition), v)


def _guarded(op: Any, q: Any, kt: Any, v: Any, mask: Any, scale: Any, cap: Any, kept: Any, condition: Any) -> Any:
    p = _probabilities(op, q, kt, mask, scale, cap, kept, condition)
    return op.MatMul(op.Where(op.IsNaN(p), 0.0, p), v)


def _positive_scale(m: Match) -> Mismatch | None:
    """ONNX Runtime's kernel takes no other."""
    if m.tag("scaled") == "no" or factor_of(m, "scaling", "scale") > 0:
        return None
    return Mismatch("constant", "a positive scale", m["scale"], m["scale"])


def _positive_cap(m: Match) -> Mismatch | None:
    if m.tag("capped") != "yes" or factor_of(m, "capping", "cap") > 0:
        return None
    return Mismatch("constant", "a positive cap", m["cap"], m["cap"])


def _shared_heads(m: Match) -> Mismatch | None:
    """As many heads of keys as of queries, or one for all of them, which the product broadcasts."""
    q, kt = dims(m["q"]), dims(m["kt"])
    assert q is not None and kt is not None, "the rule requires shapes"
    if q[1] is not None and (kt[1] == q[1] or (kt[1] == 1 and isinstance(q[1], int))):
        return None
    return Mismatch("shape", f"{q[1]} heads of keys, or one", m["kt"], m["kt"])


def _fills_heads(m: Match) -> Mismatch | None:
    """The mask does not widen the scores: no dimension of it is larger than theirs."""
    name = {"add": "mask", "keep": "condition", "drop": "condition"}.get(m.tag("masking") or "")
    if name is None:
        return None
    found, q, kt = dims(m[name]), dims(m["q"]), dims(m["kt"])
    assert q is not None and kt is not None, "the rule requires shapes"
    if found is None or len(found) > 4:
        return Mismatch("rank", "a mask of at most 4 dimensions", m[name], m[name])
    scores = [q[0], q[1], q[2], kt[3]]
    for have, want in zip(reversed(found), reversed(scores), strict=False):
        # Other names may be the same length. Where they are not, the operator refuses the mask: never a silent change.
        if isinstance(have, int) and isinstance(want, int) and have not in (1, want):
            return Mismatch("shape", f"a mask that fits scores {scores}", m[name], m[name])
    return None


def _attention(op: Builder, m: Match, mask: ir.Value | None) -> ir.Value:
    """The operator caps the scaled scores at ``softcap``: c * tanh(x / c), where the graph multiplies by 1 / c."""
    k = op.Transpose(m["kt"], perm=[0, 1, 3, 2])
    factor = factor_of(m, "scaling", "scale") if m.tag("scaled") == "yes" else 1.0
    cap = factor_of(m, "capping", "cap") if m.tag("capped") == "yes" else None
    return op.Attention(m["q"], k, m["v"], mask, scale=factor * (cap or 1.0), softcap=cap)


def _fused(op: Builder, m: Match) -> ir.Value:
    return _attention(op, m, _mask(op, m))


def _fused_guarded(op: Builder, m: Match) -> ir.Value:
    """Fully blocked rows give NaN and then zero: Attention does that for a boolean mask."""
    return _attention(op, m, _mask(op, m, guarded=True))


def _mask(op: Builder, m: Match, guarded: bool = False) -> ir.Value | None:
    infinite = guarded and m.scalar("kept") == -np.inf  # only that makes NaN: around another, the guard never acts
    match m.tag("masking"):
        case "add":
            return additive(op, m["mask"], m["q"], m["kt"])
        case "keep":
            return from_condition(op, m["condition"], m["q"], m["kt"], keep=True, boolean=infinite)
        case "drop":
            return from_condition(op, m["condition"], m["q"], m["kt"], keep=False, boolean=infinite)
    return None


_WHERE = (
    masked_low("kept"),
    scalar_factor("scale", "cap"),
    _positive_scale,
    _positive_cap,
    shapes(q="B _ S D", kt="B K D T", v="B K T _"),
    _shared_heads,
    same_dtype("q", "kt", "v", "mask"),
    dtype("q", ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16),
    _fills_heads,
)

RULES = [
    Rule("attention", _plain, _fused, _WHERE, anchor="Softmax", stays=for_other_softmaxes),
    Rule("attention", _guarded, _fused_guarded, _WHERE, anchor="Softmax", stays=for_other_softmaxes),
]
