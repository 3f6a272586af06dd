"""Scales: on either factor of a product, on its result, half on each, or before or after a view."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.require import is_constant, not_constant, scalar_constant
from onnxsmith.passes.engine.values import constant
from tests.fuzz.mutation import Mutation, Respelling, is_float
from tests.fuzz.mutations.arithmetic import number, value


def _positive(m: Match) -> Mismatch | None:
    return None if value(m, "c") > 0 else Mismatch("constant", "a positive scale", m["c"], m["c"])


def _split(op: Builder, m: Match, rng: Random) -> ir.Value:
    root = value(m, "c") ** 0.5
    return op.Mul(op.Mul(m["x"], number(op, root)), number(op, root))


def _scaled_product(op: Any, a: Any, b: Any, c: Any) -> Any:
    return op.Mul(op.MatMul(a, b), c)


def _divided_product(op: Any, a: Any, b: Any, c: Any) -> Any:
    return op.Div(op.MatMul(a, b), c)


def _on_factor(op: Builder, m: Match, rng: Random) -> ir.Value:
    if rng.random() < 0.5:
        return op.MatMul(op.Mul(m["a"], m["c"]), m["b"])
    return op.MatMul(m["a"], op.Mul(m["b"], m["c"]))


def _divisor_on_factor(op: Builder, m: Match, rng: Random) -> ir.Value:
    if rng.random() < 0.5:
        return op.MatMul(op.Div(m["a"], m["c"]), m["b"])
    return op.MatMul(m["a"], op.Div(m["b"], m["c"]))


def _on_both(op: Builder, m: Match, rng: Random) -> ir.Value:
    root = number(op, value(m, "c") ** 0.5)
    return op.MatMul(op.Mul(m["a"], root), op.Mul(m["b"], root))


def _before_transpose(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Transpose(op.Mul(m["x"], m["c"]), perm=m.attribute("perm"))


def _before_reshape(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Reshape(op.Mul(m["x"], m["c"]), m["shape"])


def _into_sum(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Add(op.Mul(m["a"], m["c"]), op.Mul(m["b"], m["c"]))


def _scores_of_heads(op: Any, x: Any, w: Any, b: Any, to: Any, kt: Any, c: Any) -> Any:
    heads = op.Transpose(op.Reshape(op.Add(op.MatMul(x, w), b), to), perm=[0, 2, 1, 3])
    return op.Div(op.MatMul(heads, kt), c)


def _into_weights(op: Builder, m: Match, rng: Random) -> ir.Value:
    weight, bias = constant(m["w"]), constant(m["b"])
    assert weight is not None and bias is not None, "the mutation requires weights"
    divisor = np.float32(value(m, "c"))
    product = op.MatMul(m["x"], op.constant(weight.numpy() / divisor, "scaled"))
    query = op.Add(product, op.constant(bias.numpy() / divisor, "scaled_bias"))
    return op.MatMul(op.Transpose(op.Reshape(query, m["to"]), perm=[0, 2, 1, 3]), m["kt"])


_SCALAR = (scalar_constant("c"), is_float)

_FACTORS = (not_constant("a", "b"), *_SCALAR)  # a factor folded into weights is gone: see scale-into-weights

MUTATIONS: list[Mutation] = [
    Respelling("split-scale", lambda op, x, c: op.Mul(x, c), _split, (*_SCALAR, _positive)),
    Respelling("scale-on-factor", _scaled_product, _on_factor, _FACTORS),
    Respelling("divisor-on-factor", _divided_product, _divisor_on_factor, _FACTORS),
    Respelling("scale-on-both", _scaled_product, _on_both, (*_FACTORS, _positive)),
    Respelling(
        "scale-before-transpose",
        lambda op, x, c: op.Mul(op.Transpose(x, perm=attr("perm")), c),
        _before_transpose,
        _SCALAR,
    ),
    Respelling(
        "scale-before-reshape", lambda op, x, c, shape: op.Mul(op.Reshape(x, shape), c), _before_reshape, _SCALAR
    ),
    Respelling("scale-into-weights", _scores_of_heads, _into_weights, (is_constant("w", "b"), *_SCALAR)),
    Respelling("scale-into-sum", lambda op, a, b, c: op.Mul(op.Add(a, b), c), _into_sum, _SCALAR),
]
