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
    """0.5 * x * (1 + curve), in every order of the products; the outermost Mul is the root of the pattern."""
    gate = op.Add(1.0, curve)
    half = either("half", times=op.Mul(0.5, gate), divided=op.Div(gate, 2.0), spread=op.Add(0.5, op.Mul(0.5, curve)))
    half_x = either("half_x", times=op.Mul(x, 0.5), divided=op.Div(x, 2.0))
    return either("order", gate=op.Mul(half_x, gate), x=op.Mul(x, half), half=op.Mul(op.Mul(x, gate), 0.5))


def _scaled(op: Any, x: Any) -> Either:
    return either("argument", div=op.Div(x, math.sqrt(2)), mul=op.Mul(x, math.sqrt(0.5)))


def _erf_gate(op: Any, x: Any) -> Any:
    return op.Erf(_scaled(op, x))


def _tanh_gate(op: Any, x: Any) -> Any:
    slope, cubic = math.sqrt(2 / math.pi), 0.044715
    square = either("square", mul=op.Mul(x, x), pow=op.Pow(x, 2.0))
    cube = either("cube", pow=op.Pow(x, 3.0), mul=op.Mul(x, square))
    argument = either(
        "argument",
        sum=op.Mul(op.Add(x, op.Mul(cube, cubic)), slope),
        product=op.Mul(op.Mul(x, op.Add(1.0, op.Mul(square, cubic))), slope),
        reordered=op.Mul(op.Mul(x, slope), op.Add(1.0, op.Mul(square, cubic))),
        expanded=op.Mul(x, op.Add(slope, op.Mul(square, slope * cubic))),
    )
    return op.Tanh(argument)


def _rules(name: str, gate: Any, approximate: str, anchor: str) -> list[Rule]:
    """One rule per root: a pattern's root is one operator, and the three orders end in three different Muls."""

    def rewrite(op: Builder, m: Match) -> ir.Value:
        return op.Gelu(m["x"], approximate=approximate)

    def rooted(order: str) -> Any:
        def pattern(op: Any, x: Any) -> Any:
            return _half_of_product(op, x, gate(op, x)).choices[order]

        return pattern

    where = (dtype("x", *_FLOATS),)
    return [Rule(name, rooted(o), rewrite, where, anchor) for o in ("gate", "x", "half")]


RULES = [
    *_rules("gelu", _erf_gate, "none", "Erf"),
    *_rules("gelu-tanh", _tanh_gate, "tanh", "Tanh"),
]
