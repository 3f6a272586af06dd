"""GELU written out becomes one Gelu (opset 20).

    erf form   0.5 * x * (1 + erf(x / sqrt(2)))                              exact
    tanh form  0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))     approximate="tanh"

Source: Hendrycks and Gimpel 2016, arXiv:1606.08415; ONNX operator specification, Gelu-20. The sigmoid form
x * sigmoid(1.702 x) is another function, which no standard operator computes: the target's lowering takes it.
"""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.pattern import Either, either
from onnxsmith.passes.engine.require import dtype
from onnxsmith.passes.engine.rule import Rule

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _half_of_product(op: Any, x: Any, curve: Any) -> Either:
    """0.5 * x * (1 + curve), in every order of the products; the outermost node is the root of the pattern."""
    gate = op.Add(1.0, curve)
    half = either("half", whole=_times(op, gate, 0.5), spread=op.Add(0.5, _times(op, curve, 0.5)))
    half_x = _times(op, x, 0.5)
    return either(
        "order",
        gate=op.Mul(half_x, gate),
        x=op.Mul(x, half),
        half=op.Mul(op.Mul(x, gate), 0.5),
        halved=op.Div(op.Mul(x, gate), 2.0),
    )


def _times(op: Any, x: Any, factor: float) -> Either:
    return either("factor", mul=op.Mul(x, factor), div=op.Div(x, 1 / factor))


def _erf_gate(op: Any, x: Any) -> Any:
    return op.Erf(_times(op, x, math.sqrt(0.5)))


def _tanh_gate(op: Any, x: Any) -> Any:
    slope, cubic = math.sqrt(2 / math.pi), 0.044715
    square = either("square", mul=op.Mul(x, x), pow=op.Pow(x, 2.0))
    cube = either("cube", pow=op.Pow(x, 3.0), mul=op.Mul(x, square))
    bent = op.Add(1.0, _times(op, square, cubic))
    argument = either(
        "argument",
        sum=_times(op, op.Add(x, _times(op, cube, cubic)), slope),
        product=_times(op, op.Mul(x, bent), slope),
        reordered=op.Mul(_times(op, x, slope), bent),
        expanded=op.Mul(x, op.Add(slope, _times(op, square, slope * cubic))),
        spread=op.Add(_times(op, x, slope), _times(op, cube, slope * cubic)),
    )
    return op.Tanh(argument)


def _rules(name: str, gate: Any, approximate: str, anchor: str) -> list[Rule]:
    """One rule per root: a pattern's root is one operator, and the orders end in different nodes."""

    def rewrite(op: Builder, m: Match) -> ir.Value:
        return op.Gelu(m["x"], approximate=approximate)

    def rooted(order: str) -> Any:
        def pattern(op: Any, x: Any) -> Any:
            return _half_of_product(op, x, gate(op, x)).choices[order]

        return pattern

    where = (dtype("x", *_FLOATS),)
    return [Rule(name, rooted(o), rewrite, where, anchor) for o in ("gate", "x", "half", "halved")]


RULES = [
    *_rules("gelu", _erf_gate, "none", "Erf"),
    *_rules("gelu-tanh", _tanh_gate, "tanh", "Tanh"),
]
