"""Squares, roots, means, sigmoids and softmaxes in other operators."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.values import attribute, dims, opset
from tests.fuzz.mutation import Mutation, Respelling, is_float
from tests.fuzz.mutations.arithmetic import number


def _square_as_power(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Pow(m["x"], number(op, 2.0))


def _square_as_product(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Mul(m["x"], m["x"])


def _cube_as_product(op: Builder, m: Match, rng: Random) -> ir.Value:
    x = m["x"]
    square = op.Mul(x, x) if rng.random() < 0.5 else op.Pow(x, number(op, 2.0))
    return op.Mul(x, square)


def _root_as_power(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Pow(m["x"], number(op, 0.5))


def _reciprocal_as_quotient(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Div(number(op, 1.0), m["x"])


def _reciprocal_root_as_power(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Pow(m["x"], number(op, -0.5))


def _over_root(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Div(m["y"], op.Sqrt(m["x"]))


def _last_axis_known(m: Match) -> Mismatch | None:
    found = dims(m["x"])
    if found is not None and isinstance(found[-1], int) and attribute(m.root, "axes") == [-1]:
        return None
    return Mismatch("rank", "a mean over a known last axis, named by the attribute", m["x"], m["x"])


def _mean_as_sum(op: Builder, m: Match, rng: Random) -> ir.Value:
    width = (dims(m["x"]) or [])[-1]
    assert isinstance(width, int)
    total = op.ReduceSum(m["x"], op.constant([-1], "axes", np.int64), keepdims=m.attribute("keepdims"))
    return op.Div(total, number(op, float(width)))


def _old(m: Match) -> Mismatch | None:
    version = opset(m.root)
    return None if version == 17 else Mismatch("opset", "opset 17", version, m.root)


def _written_sigmoid(op: Builder, m: Match, rng: Random) -> ir.Value:
    total = op.Add(number(op, 1.0), op.Exp(op.Neg(m["x"])))
    return op.Reciprocal(total) if rng.random() < 0.5 else op.Div(number(op, 1.0), total)


def _written_softmax(op: Builder, m: Match, rng: Random) -> ir.Value:
    largest = op.ReduceMax(m["x"], axes=[-1], keepdims=1)
    exp = op.Exp(op.Sub(m["x"], largest))
    return op.Div(exp, op.ReduceSum(exp, op.constant([-1], "axes", np.int64), keepdims=1))


MUTATIONS: list[Mutation] = [
    Respelling("square-as-power", lambda op, x: op.Mul(x, x), _square_as_power, (is_float,)),
    Respelling("square-as-product", lambda op, x: op.Pow(x, 2.0), _square_as_product, (is_float,)),
    Respelling("cube-as-product", lambda op, x: op.Pow(x, 3.0), _cube_as_product, (is_float,)),
    Respelling("root-as-power", lambda op, x: op.Sqrt(x), _root_as_power, (is_float,)),
    Respelling("reciprocal-as-quotient", lambda op, x: op.Reciprocal(x), _reciprocal_as_quotient, (is_float,)),
    Respelling(
        "reciprocal-root-as-power", lambda op, x: op.Reciprocal(op.Sqrt(x)), _reciprocal_root_as_power, (is_float,)
    ),
    Respelling("over-root", lambda op, x, y: op.Mul(y, op.Reciprocal(op.Sqrt(x))), _over_root, (is_float,)),
    Respelling("written-sigmoid", lambda op, x: op.Sigmoid(x), _written_sigmoid, (is_float,)),
    Respelling("written-softmax", lambda op, x: op.Softmax(x, axis=-1), _written_softmax, (_old, is_float)),
    Respelling(
        "mean-as-sum",
        lambda op, x: op.ReduceMean(x, keepdims=attr("keepdims")),
        _mean_as_sum,
        (_old, _last_axis_known, is_float),
    ),
]
