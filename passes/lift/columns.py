"""Products of one input with columns of weights, joined again, become one product.

    concat(x · W1 + b1, x · W2 + b2)     x · [W1 W2] + [b1 b2]

Weights that were cut by columns, to be spread over devices or because a checkpoint keeps them so. The whole weights
stay unread until the model is written.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.absent import joined
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.require import is_constant, same_dtype
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, rank

_WEIGHTS, _BIASES = ("w0", "w1", "w2", "w3"), ("b0", "b1", "b2", "b3")


def _products(n: int) -> Any:
    def pattern(op: Any, x: Any, w0: Any, w1: Any, w2: Any, w3: Any) -> Any:
        return op.Concat(*(op.MatMul(x, w) for w in (w0, w1, w2, w3)[:n]), axis=attr("axis"))

    return pattern


def _biased(n: int) -> Any:
    def pattern(op: Any, x: Any, w0: Any, w1: Any, w2: Any, w3: Any, b0: Any, b1: Any, b2: Any, b3: Any) -> Any:
        pairs = list(zip((w0, w1, w2, w3), (b0, b1, b2, b3), strict=True))[:n]
        return op.Concat(*(op.Add(op.MatMul(x, w), b) for w, b in pairs), axis=attr("axis"))

    return pattern


def _columns(m: Match) -> Mismatch | None:
    """Joined along the last axis, of weights that nobody else reads, each bias as long as its product is wide."""
    if m.attribute("axis") not in (-1, (rank(m["x"]) or 0) - 1):
        return Mismatch("attribute", "products joined along their last axis", m.attribute("axis"), m.root)
    for w, b in zip(map(m.get, _WEIGHTS), map(m.get, _BIASES), strict=True):
        if w is not None and (rank(w) != 2 or len(w.uses()) > 1):
            return Mismatch("escapes", "weights of two dimensions that one product reads", w, w)
        if b is not None and (w is None or dims(b) != (dims(w) or [])[1:]):
            return Mismatch("shape", "a bias as long as its product is wide", b, b)
    return None


def _joined(op: Builder, m: Match, names: tuple[str, ...]) -> ir.Value:
    tensors = [tensor for name in names if (tensor := constant(m.get(name))) is not None]
    return op.lazy_constant(joined(tensors), f"{m[names[0]].name}_joined")


def _one_product(op: Builder, m: Match) -> ir.Value:
    product = op.MatMul(m["x"], _joined(op, m, _WEIGHTS))
    return product if m.get("b0") is None else op.Add(product, _joined(op, m, _BIASES))


_WHERE = (is_constant(*_WEIGHTS, *_BIASES), same_dtype(*_WEIGHTS, *_BIASES), _columns)

RULES = [
    Rule("joined-product", pattern(n), _one_product, _WHERE)
    for pattern in (_products, _biased)
    for n in range(2, len(_WEIGHTS) + 1)
]
