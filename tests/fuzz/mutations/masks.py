"""Masks: Where instead of Add and back, inverted conditions, other numbers for what is blocked.

These hold for rows with an allowed key, and the fuzzer's inputs have no other rows: where every key is blocked, the
numbers decide what the row becomes, so spellings differ there by right.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import scalar_constant
from tests.fuzz.mutation import Mutation, Respelling, is_float
from tests.fuzz.mutations.arithmetic import number, value

_LOWEST = float(np.finfo(np.float32).min)
_NEUTRAL = (-1e4, -1e9, _LOWEST / 2, _LOWEST)


def _blocking(m: Match) -> Mismatch | None:
    return None if value(m, "low") <= -1e4 else Mismatch("constant", "a blocking number", m["low"], m["low"])


def _only_fill(m: Match) -> Mismatch | None:
    """The same scores are not filled twice: two numbers within one softmax are two masks."""
    twins = [user for user, _ in m["s"].uses() if user.op_type == "Where" and user is not m.root]
    return Mismatch("same-node", "one Where of the scores", twins[0], m.root) if twins else None


def _padded(op: Any, s: Any, kept: Any, low: Any) -> Any:
    return op.Add(s, op.Mul(op.Sub(1.0, op.Cast(kept, to=1)), low))


def _padding_as_where(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Where(op.Cast(m["kept"], to=ir.DataType.BOOL.value), m["s"], m["low"])


def _inverted(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Where(op.Not(m["c"]), m["low"], m["s"])


def _as_sum(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Add(m["s"], op.Where(m["c"], number(op, 0.0), m["low"]))


def _other_number(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Where(m["c"], m["s"], number(op, rng.choice((*_NEUTRAL, -np.inf))))


def _other_product(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Mul(op.Sub(number(op, 1.0), m["kept"]), number(op, rng.choice(_NEUTRAL)))


def _finite_sum(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Mul(op.Sub(m["kept"], number(op, 1.0)), number(op, -value(m, "low")))


def _biased_and_padded(op: Any, s: Any, bias: Any, kept: Any, low: Any) -> Any:
    return op.Add(s, op.Add(bias, op.Mul(op.Sub(1.0, op.Cast(kept, to=1)), low)))


def _soft_as_where(op: Builder, m: Match, rng: Random) -> ir.Value:
    """A soft mask is chosen where a key is kept: before it is added to the scores, or after."""
    kept, low = op.Cast(m["kept"], to=ir.DataType.BOOL.value), m["low"]
    if rng.random() < 0.5:
        return op.Add(m["s"], op.Where(kept, m["bias"], low))
    return op.Where(kept, op.Add(m["s"], m["bias"]), low)


def _biased_then_filled(op: Any, c: Any, s: Any, bias: Any, low: Any) -> Any:
    return op.Where(c, op.Add(s, bias), low)


def _filled_bias(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Add(m["s"], op.Where(m["c"], m["bias"], m["low"]))


def _from_product(m: Match) -> Mismatch | None:
    """``s`` are the scores of the two: a product, perhaps scaled."""
    node = m["s"].producer()
    scored = node is not None and node.op_type in ("MatMul", "Mul", "Div")
    return None if scored else Mismatch("op-type", "scores", m["s"], m["s"])


def _kept_or_not(op: Any, c: Any, s: Any, low: Any) -> Any:
    return op.Where(c, s, low)


def _blocked_product(op: Any, kept: Any, low: Any) -> Any:
    return op.Mul(op.Sub(1.0, kept), low)


_LOW = (scalar_constant("low"), _blocking, is_float)

MUTATIONS: list[Mutation] = [
    Respelling("padding-as-where", _padded, _padding_as_where, _LOW),
    Respelling("soft-mask-as-where", _biased_and_padded, _soft_as_where, _LOW),
    Respelling("bias-in-where", _biased_then_filled, _filled_bias, (*_LOW, _from_product)),
    Respelling("inverted-where", _kept_or_not, _inverted, _LOW),
    Respelling("where-as-sum", _kept_or_not, _as_sum, _LOW),
    Respelling("other-number-in-where", _kept_or_not, _other_number, (*_LOW, _only_fill)),
    Respelling("other-number-in-product", _blocked_product, _other_product, _LOW),
    Respelling("negated-product", _blocked_product, _finite_sum, _LOW),
]
