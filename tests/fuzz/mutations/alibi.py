"""ALiBi: a slope for each head times the distance of key and query, in the spellings that exporters and papers have.

All of them are exact: distances are small integers, and slopes are powers of two (Press et al. 2022, arXiv:2108.12409).
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import is_constant
from onnxsmith.passes.engine.values import constant, rank
from tests.fuzz.mutation import Mutation, Respelling

_FLOAT = ir.DataType.FLOAT.value


def _distance(op: Any, key: Any, query: Any, slopes: Any) -> Any:
    return op.Mul(op.Cast(op.Sub(key, query), to=1), slopes)


def _of_integers(m: Match) -> Mismatch | None:
    whole = m["key"].dtype == ir.DataType.INT64 and rank(m["slopes"]) == 3
    return None if whole else Mismatch("dtype", "positions and slopes of heads", m["key"], m["key"])


def _negated(op: Builder, m: Match) -> ir.Value:
    tensor = constant(m["slopes"])
    assert tensor is not None, "the mutation requires slopes"
    return op.constant(-tensor.numpy(), "negative_slopes")


def _other_sign(op: Builder, m: Match, rng: Random) -> ir.Value:
    """Query minus key, times slopes below zero."""
    return op.Mul(op.Cast(op.Sub(m["query"], m["key"]), to=_FLOAT), _negated(op, m))


def _from_float(op: Builder, m: Match, rng: Random) -> ir.Value:
    """Positions are numbers before they are subtracted."""
    return op.Mul(op.Sub(op.Cast(m["key"], to=_FLOAT), op.Cast(m["query"], to=_FLOAT)), m["slopes"])


def _each_sloped(op: Builder, m: Match, rng: Random) -> ir.Value:
    key, query = (op.Mul(op.Cast(m[name], to=_FLOAT), m["slopes"]) for name in ("key", "query"))
    return op.Sub(key, query)


def _absolute(op: Builder, m: Match, rng: Random) -> ir.Value:
    """The distance without its sign, negative for keys behind: as it is where only those are seen."""
    apart = op.Sub(m["key"], m["query"])
    signed = op.Where(op.Less(apart, op.constant(0, "none", np.int64)), op.Neg(op.Abs(apart)), op.Abs(apart))
    return op.Mul(op.Cast(signed, to=_FLOAT), m["slopes"])


_WHERE = (is_constant("slopes"), _of_integers)

MUTATIONS: list[Mutation] = [
    Respelling(f"alibi-{name}", _distance, rewrite, _WHERE)
    for name, rewrite in (
        ("other-sign", _other_sign),
        ("from-float", _from_float),
        ("each-sloped", _each_sloped),
        ("absolute", _absolute),
    )
]
