"""Sigmoid and softmax written out become one operator each.

    sigmoid   1 / (1 + exp(-x))
    softmax   exp(x - max(x)) / sum(exp(x - max(x)))

Without the maximum, exp overflows where softmax does not: that form is another function in floating point, and stays.
Source: ONNX operator specification, Sigmoid-13 and Softmax-13.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import either
from onnxsmith.passes.engine.require import dtype
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import rank, scalar

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _one_plus_exp(op: Any, x: Any) -> Any:
    return op.Add(1.0, op.Exp(op.Neg(x)))


def _over(op: Any, x: Any) -> Any:
    return op.Div(1.0, _one_plus_exp(op, x))


def _reciprocal(op: Any, x: Any) -> Any:
    return op.Reciprocal(_one_plus_exp(op, x))


def _sigmoid(op: Builder, m: Match) -> ir.Value:
    return op.Sigmoid(m["x"])


def _shares(op: Any, x: Any, axes: Any, sum_axes: Any) -> Any:
    exp = op.Exp(op.Sub(x, op.ReduceMax(x, axes, keepdims=1)))
    return op.Div(exp, op.ReduceSum(exp, sum_axes, keepdims=1))


def _shares_multiplied(op: Any, x: Any, axes: Any, sum_axes: Any) -> Any:
    exp = op.Exp(op.Sub(x, op.ReduceMax(x, axes, keepdims=1)))
    total = op.ReduceSum(exp, sum_axes, keepdims=1)
    return op.Mul(exp, either("inverse", reciprocal=op.Reciprocal(total), quotient=op.Div(1.0, total)))


def _last(m: Match) -> Mismatch | None:
    found = rank(m["x"])
    if found is None:
        return Mismatch("rank", "x of known rank", m["x"], m["x"])
    for name in ("axes", "sum_axes"):
        if scalar(m[name]) not in (-1, found - 1):
            return Mismatch("constant", "the last axis", m[name], m[name])
    return None


def _softmax(op: Builder, m: Match) -> ir.Value:
    return op.Softmax(m["x"], axis=-1)


RULES = [
    Rule("sigmoid", _over, _sigmoid, (dtype("x", *_FLOATS),)),
    Rule("sigmoid", _reciprocal, _sigmoid, (dtype("x", *_FLOATS),)),
    Rule("softmax", _shares, _softmax, (_last, dtype("x", *_FLOATS))),
    Rule("softmax", _shares_multiplied, _softmax, (_last, dtype("x", *_FLOATS))),
]
