"""Sums and products in the order of their meaning: what belongs together stands together.

    product + (bias + residual)     (product + bias) + residual
    x * (gate(x) * y)               (x * gate(x)) * y
    (c * x) * x                     c * (x * x)

Sums and products of real numbers associate, and in floating point they do so up to rounding. A gate is computed from
the value that it multiplies: the factor of a norm, a sigmoid, GELU's curve.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import is_constant, not_constant, scalar_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, rank, scalar

_ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "ReduceMean", "Sigmoid", "Erf", "Tanh", "Neg"}
)
_CURVES = frozenset({"Sigmoid", "Erf", "Tanh", "Sqrt", "Pow"})
_REACH = 8  # nodes between a value and its gate: GELU by tanh has seven


def _inner_bias(op: Any, product: Any, bias: Any, rest: Any) -> Any:
    return op.Add(product, op.Add(bias, rest))


def _outer_bias(op: Any, product: Any, bias: Any, rest: Any) -> Any:
    return op.Add(op.Add(product, rest), bias)


def _bias_first(op: Builder, m: Match) -> ir.Value:
    return op.Add(op.Add(m["product"], m["bias"]), m["rest"])


def _biased_product(m: Match) -> Mismatch | None:
    """The bias is a vector over the columns of the product, and what is left has no better claim to it."""
    product, bias, rest = m["product"], m["bias"], m["rest"]
    if not _takes_bias(product):
        return Mismatch("op-type", "a product with weights", product, product)
    if _takes_bias(rest):
        return Mismatch("op-type", "no second product with weights", rest, rest)
    width = (dims(product) or [None])[-1]
    if rank(bias) == 1 and isinstance(width, int) and dims(bias) == [width]:
        return None
    return Mismatch("shape", "a bias over the columns of the product", bias, bias)


def _takes_bias(v: ir.Value) -> bool:
    """Whether the value is a product with a matrix of weights, or with a norm's vector of them."""
    node = v.producer()
    if node is None or node.domain or node.op_type not in ("MatMul", "Mul"):
        return False
    ranks = [rank(i) for i in node.inputs if constant(i) is not None]
    return ranks == ([2] if node.op_type == "MatMul" else [1])


def _inner_gate(op: Any, x: Any, gate: Any, y: Any) -> Any:
    return op.Mul(x, op.Mul(gate, y))


def _gate_first(op: Builder, m: Match) -> ir.Value:
    return op.Mul(op.Mul(m["x"], m["gate"]), m["y"])


def _gated(m: Match) -> Mismatch | None:
    if not (_gates(m["gate"], m["x"]) or _gates(m["x"], m["gate"])):
        return Mismatch("op-type", "a gate and the value that it is computed from", m["gate"], m["gate"])
    if scalar(m["y"]) is not None:
        return Mismatch("constant", "a factor that is more than a scalar", m["y"], m["y"])
    if _gates(m["gate"], m["y"]) or _gates(m["y"], m["gate"]):
        return Mismatch("op-type", "a product that is not gated yet", m["y"], m["y"])
    return None


def _inner_divisor(op: Any, x: Any, gate: Any, y: Any) -> Any:
    return op.Mul(x, op.Div(y, gate))


def _divisor_first(op: Builder, m: Match) -> ir.Value:
    return op.Mul(op.Div(m["x"], m["gate"]), m["y"])


def _divided(m: Match) -> Mismatch | None:
    """A norm's deviation, computed from x, stands under its gain."""
    if _gates(m["gate"], m["x"]) and constant(m["y"]) is not None:
        return None
    return Mismatch("op-type", "a constant over a curve of x", m["gate"], m["gate"])


def _divided_gain(op: Any, x: Any, gate: Any, y: Any) -> Any:
    return op.Div(op.Mul(x, y), gate)


def _outer_factor(op: Any, x: Any, y: Any, factor: Any) -> Any:
    return op.Mul(op.Mul(x, y), factor)


def _inner_factor(op: Any, x: Any, y: Any, factor: Any) -> Any:
    return op.Mul(x, op.Mul(y, factor))


def _factor_first(op: Builder, m: Match) -> ir.Value:
    return op.Mul(op.Mul(m["x"], m["factor"]), m["y"])


def _gated_already(m: Match) -> Mismatch | None:
    """x is a gate times its value, and y another factor: the constant is part of the activation."""
    node = m["x"].producer()
    pair = node.inputs if node is not None and node.op_type == "Mul" else ()
    if len(pair) == 2 and (_gates(pair[0], pair[1]) or _gates(pair[1], pair[0])) and scalar(m["y"]) is None:
        return None
    return Mismatch("op-type", "a gated product", m["x"], m["x"])


def _scaled_square(op: Any, x: Any, factor: Any) -> Any:
    return op.Mul(op.Mul(x, factor), x)


def _square_first(op: Builder, m: Match) -> ir.Value:
    return op.Mul(op.Mul(m["x"], m["x"]), m["factor"])


def _gates(gate: ir.Value | None, x: ir.Value | None) -> bool:
    """Whether the gate is a curve of x, a constant factor of x aside."""
    if gate is None or x is None or constant(x) is not None:
        return False
    source, curve = _unscaled(x), False
    for node in _cone(gate):
        curve |= node.op_type in _CURVES
        if curve and any(v is not None and _unscaled(v) is source for v in node.inputs):
            return True
    return False


def _unscaled(v: ir.Value) -> ir.Value:
    node = v.producer()
    if node is None or node.op_type not in ("Mul", "Div"):
        return v
    rest = [i for i in node.inputs if scalar(i) is None]
    return rest[0] if len(rest) == 1 and rest[0] is not None else v


def _cone(v: ir.Value) -> Iterator[ir.Node]:
    """The elementwise nodes above a value, nearest first."""
    seen: dict[ir.Node, None] = {}
    frontier = [v]
    for _ in range(_REACH):
        nodes = [p for f in frontier if (p := f.producer()) is not None and p.op_type in _ELEMENTWISE and p not in seen]
        seen.update(dict.fromkeys(nodes))
        yield from dict.fromkeys(nodes)
        frontier = [i for n in dict.fromkeys(nodes) for i in n.inputs if i is not None]


_BIAS = (is_constant("bias"), not_constant("rest"), _biased_product)
_FACTOR = (scalar_constant("factor"), _gated_already)

RULES = [
    Rule("bias-first", _inner_bias, _bias_first, _BIAS),
    Rule("bias-first", _outer_bias, _bias_first, _BIAS),
    Rule("gate-first", _inner_gate, _gate_first, (_gated,)),
    Rule("gate-first", _inner_divisor, _divisor_first, (_divided,)),
    Rule("gate-first", _divided_gain, _divisor_first, (_divided, not_constant("x"))),
    Rule("gate-first", _outer_factor, _factor_first, _FACTOR),
    Rule("gate-first", _inner_factor, _factor_first, _FACTOR),
    Rule("square-first", _scaled_square, _square_first, (scalar_constant("factor"), not_constant("x"))),
]
