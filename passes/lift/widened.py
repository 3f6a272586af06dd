"""Scores of a narrow type that are widened before the softmax, as exports of half-precision models have them.

    float(q · kᵀ * scale) ─ + mask ─ softmax ─ · float(v)    becomes    float(q) · float(kᵀ) * scale ─ ...

Attention then computes in one type, and the scores are no longer rounded on the way: closer to the exact ones.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import either
from onnxsmith.passes.engine.require import dtype, not_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lift.scale import factor_of, scalar_factor, scaled

_FLOAT = int(ir.DataType.FLOAT)
_BETWEEN = frozenset({"Add", "Where", "Mul", "Div", "Tanh", "Softmax", "IsNaN"})  # none of them changes a float type
_STEPS = 12  # scale, cap, masks, softmax and guard between the two products


def _widened(op: Any, q: Any, kt: Any, scale: Any) -> Any:
    product = op.MatMul(q, kt)
    return op.Cast(either("scaled", yes=scaled(op, "scaling", product, scale), no=product), to=_FLOAT)


def _weighs_values(m: Match) -> Mismatch | None:
    """The scores become probabilities, and those meet the values in the wide type."""
    nodes, softmax = [m.root], False
    for _ in range(_STEPS):
        nodes = list(dict.fromkeys(user for node in nodes for user, _ in node.outputs[0].uses()))
        if softmax and any(node.op_type == "MatMul" for node in nodes):
            return None
        nodes = [node for node in nodes if node.op_type in _BETWEEN]
        softmax = softmax or any(node.op_type == "Softmax" for node in nodes)
    return Mismatch("op-type", "a softmax and a product with values in float32", m.outputs[0], m.root)


def _in_float(op: Builder, m: Match) -> ir.Value:
    product = op.MatMul(op.Cast(m["q"], to=_FLOAT), op.Cast(m["kt"], to=_FLOAT))
    if m.tag("scaled") == "no":
        return product
    return op.Mul(product, op.constant(factor_of(m, "scaling", "scale"), "scale", "float32"))


_WHERE = (
    dtype("q", ir.DataType.FLOAT16, ir.DataType.BFLOAT16),
    not_constant("q", "kt"),
    scalar_factor("scale"),
    _weighs_values,
)

RULES = [Rule("widened-scores", _widened, _in_float, _WHERE)]
