"""Near misses: graphs that look like their seed and compute something else, so that they must not lift to its graph.

Another epsilon, another axis, a mask that is off by one, a scale that is wrong by a hundredth: what recognition by
meaning has to tell from the equivalent spellings, and in the midst of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.require import scalar_constant
from onnxsmith.passes.engine.values import dims, scalar
from tests.fuzz.mutation import Mutation, Respelling, computed, is_float, producer

_SMALL, _LARGE = 1e-3, 1e4  # an epsilon is below, a number that blocks a score above


@dataclass(frozen=True)
class OtherNumber:
    """A scalar is wrong by a hundredth, an epsilon by half."""

    name: str = "other-number"

    def sites(self, model: ir.Model) -> list[str]:
        found = model.graph.initializers.items()
        return [name for name, v in found if v.dtype == ir.DataType.FLOAT and v.uses() and 0 < _size(v) < _LARGE]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        v = model.graph.initializers[site]
        assert v.const_value is not None
        factor = np.float32(1.5 if _size(v) < _SMALL else 1.01)
        v.const_value = ir.tensor(v.const_value.numpy() * factor, name=site)
        return model


def _size(v: ir.Value) -> float:
    return abs(scalar(v) or 0.0)


@dataclass(frozen=True)
class OtherAxis:
    """A mean or a softmax runs over the last axis but one."""

    name: str = "wrong-axis"

    def sites(self, model: ir.Model) -> list[str]:
        return [str(n.outputs[0].name) for n in model.graph if n.op_type in ("Softmax", "ReduceMean")]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        node = producer(model, site)
        wrong = ir.AttrInt64("axis", -2) if node.op_type == "Softmax" else ir.AttrInt64s("axes", [-2])
        node.attributes.add(wrong)
        for v in node.outputs:
            v.shape = None
        return model


@dataclass(frozen=True)
class OtherOperand:
    """One user of a value reads what that value is computed from instead, where that has the same shape."""

    name: str = "step-left-out"

    def sites(self, model: ir.Model) -> list[str]:
        return [str(n.outputs[0].name) for n in model.graph if _skippable(n)]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        node = producer(model, site)
        before = next(v for v in node.inputs if v is not None and computed(v) and dims(v) == dims(node.outputs[0]))
        user, i = rng.choice(list(node.outputs[0].uses()))
        user.replace_input_with(i, before)
        return model


def _skippable(node: ir.Node) -> bool:
    """A step that changes its first operand of the same shape."""
    if node.op_type not in ("Sub", "Neg", "Div", "Erf", "Tanh", "Sigmoid", "Pow") or node.outputs[0].is_graph_output():
        return False
    result = node.outputs[0]
    return computed(result) and any(v is not None and computed(v) and dims(v) == dims(result) for v in node.inputs)


def _guarded_root(op: Any, x: Any, eps: Any) -> Any:
    return op.Sqrt(op.Add(op.ReduceMean(x, axes=attr("axes")), eps))


def _guard_outside(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Add(op.Sqrt(op.ReduceMean(m["x"], axes=m.attribute("axes"))), m["eps"])


def _one_key_more(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.LessOrEqual(m["key"], op.Add(m["query"], op.constant(1, "further", np.int64)))


def _inverted_padding(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Mul(m["kept"], m["low"])


def _swapped(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.Concat(m["low"], op.Neg(m["high"]), axis=-1)


def _bent(kind: str) -> Callable[[Builder, Match, Random], ir.Value]:
    return lambda op, m, rng: getattr(op, kind)(m["x"])


NEAR_MISSES: list[Mutation] = [
    OtherNumber(),
    OtherAxis(),
    OtherOperand(),
    Respelling("epsilon-outside-root", _guarded_root, _guard_outside, (scalar_constant("eps"), is_float)),
    Respelling("mask-off-by-one", lambda op, key, query: op.LessOrEqual(key, query), _one_key_more),
    Respelling("inverted-padding", lambda op, kept, low: op.Mul(op.Sub(1.0, kept), low), _inverted_padding),
    Respelling("halves-swapped", lambda op, high, low: op.Concat(op.Neg(high), low, axis=-1), _swapped),
    Respelling("tanh-for-erf", lambda op, x: op.Erf(x), _bent("Tanh")),
    Respelling("erf-for-tanh", lambda op, x: op.Tanh(x), _bent("Erf")),
    Respelling("tanh-for-sigmoid", lambda op, x: op.Sigmoid(x), _bent("Tanh")),
]
