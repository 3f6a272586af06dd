"""Biases of keys and values cost nothing: the one changes no probability, the other is as well added further on.

    q · (k + b) = q · k + q · b            the same for every key of a row, which softmax takes out
    P (v + b) W + c = P v W + (b W + c)    since the probabilities P of a row sum to 1

That saves two additions over [B, S, H*D] a layer. A boolean mask, which gives zeros in rows without an allowed key,
keeps the bias of its values, and scores that are capped (softcap) keep that of their keys. Source: the definition of
softmax attention, Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.absent import combined
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import either
from onnxsmith.passes.engine.require import is_constant, same_dtype, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims
from onnxsmith.passes.lift.masks import MASK
from onnxsmith.passes.lower.heads import attention

Array = np.ndarray[Any, Any]


def _biased_keys(masked: bool) -> Any:
    def pattern(op: Any, q: Any, k: Any, v: Any, bias: Any, mask: Any) -> Any:
        return attention(op, (q, op.Add(k, bias), v), mask, masked)

    return pattern


def _biased_values(op: Any, q: Any, k: Any, v: Any, bias: Any, mask: Any, weight: Any, shift: Any) -> Any:
    parts = (q, k, op.Add(v, bias))
    made = either("mask", given=attention(op, parts, mask, True), none=attention(op, parts, mask, False))
    return op.Add(op.MatMul(made, weight), shift)


def _uncapped(m: Match) -> Mismatch | None:
    cap = m.attribute("softcap")
    return Mismatch("attribute", "no softcap", f"softcap={cap}", m.root) if cap else None


def _additive_mask(m: Match) -> Mismatch | None:
    mask = m.get("mask")
    if mask is None or mask.dtype != ir.DataType.BOOL:
        return None
    return Mismatch("mask", "a mask that is added to the scores", mask, mask)


def _heads_fit(m: Match) -> Mismatch | None:
    """The weights read every head of the values, each as often as there are queries for it."""
    queries, keys, width, read = _sizes(m)
    if queries and keys and queries % keys == 0 and width * queries == read * keys:
        return None
    return Mismatch("shape", "weights [H*D, N] behind H heads of values", m["weight"], m["weight"])


def _sizes(m: Match) -> tuple[int, int, int, int]:
    """Heads of queries and of keys (0 where they are not told), the bias' length and the weights' first dimension."""
    width, read = (dims(m["bias"]) or [0])[0], (dims(m["weight"]) or [0])[0]
    assert isinstance(width, int) and isinstance(read, int), "constants have known sizes"
    return m.attribute("q_num_heads") or 0, m.attribute("kv_num_heads") or 0, width, read


def _bias_behind(op: Builder, m: Match) -> ir.Value:
    product = op.MatMul(_unbiased(op, m), m["weight"])
    return op.Add(product, op.lazy_constant(_moved(m), f"{m['shift'].name}_with_values"))


def _unbiased(op: Builder, m: Match) -> ir.Value:
    """The same attention, which keeps what is known of its mask."""
    told = {name: value or None for name, value in m.attributes.items()}
    made = op.Attention(m["q"], m["k"], m["v"], m.get("mask"), **told)
    before = next(node for node in m.nodes.values() if node.op_type == "Attention")
    if MASK in before.metadata_props:
        op.nodes[-1].metadata_props[MASK] = before.metadata_props[MASK]
    return made


def _moved(m: Match) -> ir.TensorProtocol:
    """b W + c [N], with b repeated for the heads of queries that share one of values."""
    tensors = [t for name in ("bias", "weight", "shift") if (t := constant(m[name])) is not None]
    queries, keys, *_ = _sizes(m)

    def moved(bias: Array, weight: Array, shift: Array) -> Array:
        heads = np.repeat(bias.reshape(keys, -1), queries // keys, axis=0).ravel()
        return (heads.astype(np.float64) @ weight + shift).astype(shift.dtype)

    return combined(tensors, moved, ir.Shape(tensors[2].shape.numpy()), tensors[2].dtype)


_KEYS = (is_constant("bias"), shapes(k="_ _ D", bias="D"), same_dtype("k", "bias"), _uncapped)
_VALUES = (
    is_constant("bias", "weight", "shift"),
    shapes(v="_ _ D", bias="D", weight="_ N", shift="N"),
    same_dtype("v", "bias", "weight", "shift"),
    _additive_mask,
    _heads_fit,
)

RULES = [
    *(Rule("bias-free-keys", _biased_keys(masked), _unbiased, _KEYS) for masked in (True, False)),
    Rule("bias-behind-values", _biased_values, _bias_behind, _VALUES),
]
