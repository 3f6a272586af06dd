"""Sums and products in another order, and each operator by its inverse."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import is_constant, scalar_constant
from onnxsmith.passes.engine.values import constant
from tests.fuzz.mutation import Mutation, Respelling, is_float


def _commuted(kind: str) -> Respelling:
    def pattern(op: Any, a: Any, b: Any) -> Any:
        return getattr(op, kind)(a, b)

    def rewrite(op: Builder, m: Match, rng: Random) -> ir.Value:
        inputs = m.root.inputs
        return getattr(op, kind)(inputs[1], inputs[0])  # type: ignore[no-any-return]

    return Respelling(f"commuted-{kind.lower()}", pattern, rewrite)


def _reassociated(kind: str) -> Respelling:
    def pattern(op: Any, a: Any, b: Any, c: Any) -> Any:
        return getattr(op, kind)(getattr(op, kind)(a, b), c)

    def rewrite(op: Builder, m: Match, rng: Random) -> ir.Value:
        build = getattr(op, kind)
        a, b = rng.sample([m["a"], m["b"]], 2)
        return build(a, build(b, m["c"]))  # type: ignore[no-any-return]

    return Respelling(f"reassociated-{kind.lower()}", pattern, rewrite, (is_float,))


def number(op: Builder, value: float) -> ir.Value:
    """A scalar of the result's type; of shape [] or [1] as the model has room for it."""
    return op.constant(value, "number", np.float32)


def value(m: Match, name: str) -> float:
    found = m.scalar(name)
    assert found is not None, "the mutation requires a scalar"
    return found


def _sub_as_neg(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Add(m["a"], op.Neg(m["b"]))


def _add_as_sub(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Sub(m["a"], op.Neg(m["b"]))


def _add_negative(op: Builder, m: Match, rng: Random) -> ir.Value:
    tensor = constant(m["c"])
    assert tensor is not None, "the mutation requires a constant"
    return op.Sub(m["x"], op.constant(-tensor.numpy(), "negative"))


def _times_reciprocal(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Mul(m["x"], number(op, 1 / value(m, "c")))


def _over_reciprocal(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Div(m["x"], number(op, 1 / value(m, "c")))


def _times_computed(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Mul(m["x"], op.Reciprocal(m["y"]))


def _neg_as_product(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Mul(m["x"], number(op, -1.0))


def _invertible(m: Match) -> Mismatch | None:
    """The reciprocal is a normal number too."""
    if 1e-30 < abs(value(m, "c")) < 1e30:
        return None
    return Mismatch("constant", "a number with a normal reciprocal", m["c"], m["c"])


_DIVISOR = (scalar_constant("c"), _invertible, is_float)

MUTATIONS: list[Mutation] = [
    *(_commuted(kind) for kind in ("Add", "Mul", "And")),
    *(_reassociated(kind) for kind in ("Add", "Mul")),
    Respelling("sub-as-neg", lambda op, a, b: op.Sub(a, b), _sub_as_neg, (is_float,)),
    Respelling("add-as-sub", lambda op, a, b: op.Add(a, b), _add_as_sub, (is_float,)),
    Respelling("add-negative", lambda op, x, c: op.Add(x, c), _add_negative, (is_constant("c"), is_float)),
    Respelling("times-reciprocal", lambda op, x, c: op.Div(x, c), _times_reciprocal, _DIVISOR),
    Respelling("over-reciprocal", lambda op, x, c: op.Mul(x, c), _over_reciprocal, _DIVISOR),
    Respelling("times-computed", lambda op, x, y: op.Div(x, y), _times_computed, (is_float,)),
    Respelling("neg-as-product", lambda op, x: op.Neg(x), _neg_as_product, (is_float,)),
]
