"""One spelling of the simplest arithmetic: no neutral elements, no minus of a minus, one constant factor.

Research code and converters leave x + 0, x * 1, x - (-y), casts there and back and dropouts that are switched off, and
put two constant factors behind each other. What stays is what the later rules look for. Each rewrite is exact but for
the rounding of a folded constant. Source: ONNX operator specification.
"""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.require import dtype, is_constant, scalar_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, readable
from onnxsmith.passes.lift.scale import factor_of, scalar_factor, scaled, unscaled

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
_WIDER = {  # the types that hold every number of the type
    ir.DataType.FLOAT: (ir.DataType.DOUBLE,),
    ir.DataType.FLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.BFLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
}
_MOST_NEGATED = 1 << 16  # elements: a bias, never a weight, is copied


def _same(op: Builder, m: Match) -> ir.Value:
    """The value itself, so that views around it meet; a graph output needs a node of its own to carry its name."""
    return op.Identity(m["x"]) if m.outputs[0].is_graph_output() else m["x"]


def _no_epsilon(m: Match) -> Mismatch | None:
    """What is added to a mean under a root guards a norm, whose own rule says what is wrong with a guard of zero."""
    node = m["x"].producer()
    roots = [user for user, _ in m.outputs[0].uses() if user.op_type in ("Sqrt", "Pow")]
    if not roots or node is None or node.op_type != "ReduceMean":
        return None
    return Mismatch("op-type", "no root of the sum", roots[0].op_type, roots[0])


def _negated_twice(op: Any, x: Any) -> Any:
    return op.Neg(op.Neg(x))


def _there_and_back(op: Any, x: Any) -> Any:
    return op.Cast(op.Cast(x, to=attr("there")), to=attr("back"))


def _lossless(m: Match) -> Mismatch | None:
    v = m["x"]
    there, back = m.attribute("there"), m.attribute("back")
    if v.dtype is not None and v.dtype.value == back and there in [t.value for t in _WIDER.get(v.dtype, ())]:
        return None
    return Mismatch("dtype", "a cast to a wider type and back", v, v)


def _inactive(m: Match) -> Mismatch | None:
    """ONNX's Dropout does nothing unless its third input says that the model is in training."""
    mask = m.root.outputs[1:]
    if any(v.uses() or v.is_graph_output() for v in mask):
        return Mismatch("escapes", "no use of the dropped positions", mask[0], m.root)
    training = m.get("training")
    tensor = constant(training)
    if training is None or (tensor is not None and not tensor.numpy().any()):
        return None
    return Mismatch("constant", "a dropout that is switched off", training, training)


def _plus_negative(op: Any, a: Any, b: Any) -> Any:
    return op.Add(a, op.Neg(b))


def _minus_negative(op: Any, a: Any, b: Any) -> Any:
    return op.Sub(a, op.Neg(b))


def _sum(op: Builder, m: Match) -> ir.Value:
    return op.Add(m["a"], m["b"])


def _difference(op: Builder, m: Match) -> ir.Value:
    return op.Sub(m["a"], m["b"])


def _inverted(m: Match) -> Mismatch | None:
    """The condition is a Not, which other nodes may read too: it is not part of the match."""
    node = m["c"].producer()
    if node is not None and node.op_type == "Not" and not node.domain:
        return None
    return Mismatch("op-type", "Not", m["c"], m["c"])


def _turned(op: Builder, m: Match) -> ir.Value:
    node = m["c"].producer()
    assert node is not None, "the rule requires a Not"
    return op.Where(node.inputs[0], m["b"], m["a"])


def _small(m: Match) -> Mismatch | None:
    tensor = constant(m["c"])
    if tensor is not None and readable(tensor) and tensor.size <= _MOST_NEGATED:
        return None
    return Mismatch("constant", f"at most {_MOST_NEGATED} elements", m["c"], m["c"])


def _plus_constant(op: Builder, m: Match) -> ir.Value:
    tensor = constant(m["c"])
    assert tensor is not None, "the rule requires a constant"
    return op.Add(m["x"], op.constant(-tensor.numpy(), "negative"))


def _times_factor(op: Any, x: Any, outer: Any) -> Any:
    return op.Mul(x, outer)


def _over_factor(op: Any, x: Any, outer: Any) -> Any:
    return op.Div(x, outer)


def _factor(m: Match) -> tuple[ir.Value, float]:
    found, outer = unscaled(m["x"]), m.scalar("outer")
    assert found is not None and outer is not None, "the rule requires two constant factors"
    return found[0], found[1] * outer if m.root.op_type == "Mul" else found[1] / outer


def _one_factor(op: Builder, m: Match) -> ir.Value:
    y, factor = _factor(m)
    kind = m.outputs[0].dtype
    assert kind is not None, "the rule requires a known type"
    return op.Mul(y, op.constant(factor, "factor", kind.numpy()))


def _scaled_before(m: Match) -> Mismatch | None:
    """x has a constant factor, and the product of both is a normal number of the type."""
    if unscaled(m["x"]) is None:
        return Mismatch("op-type", "a value with a constant factor", m["x"], m["x"])
    low, high = (6e-5, 6e4) if m.outputs[0].dtype == ir.DataType.FLOAT16 else (1e-30, 1e30)
    if low <= abs(_factor(m)[1]) <= high:
        return None
    return Mismatch("constant", "factors whose product is in range", m["outer"], m["outer"])


def _common(op: Any, a: Any, b: Any, fa: Any, fb: Any) -> Any:
    return op.Add(scaled(op, "left", a, fa), scaled(op, "right", b, fb))


def _equal(m: Match) -> Mismatch | None:
    left, right = factor_of(m, "left", "fa"), factor_of(m, "right", "fb")
    if math.isclose(left, right, rel_tol=1e-6):
        return None
    return Mismatch("constant", f"a factor of {left:.6g} on both", m["fb"], m["fb"])


def _common_factor(op: Builder, m: Match) -> ir.Value:
    factor = factor_of(m, "left", "fa")
    kind = m.outputs[0].dtype
    assert kind is not None, "the rule requires a known type"
    return op.Mul(op.Add(m["a"], m["b"]), op.constant(factor, "factor", kind.numpy()))


def _mean(op: Any, x: Any, axes: Any, count: Any) -> Any:
    return op.Mul(op.ReduceSum(x, axes, keepdims=attr("keepdims")), count)


def _mean_divided(op: Any, x: Any, axes: Any, count: Any) -> Any:
    return op.Div(op.ReduceSum(x, axes, keepdims=attr("keepdims")), count)


def _counts(divided: bool) -> Any:
    """The constant is the number of elements that the sum runs over (or its reciprocal)."""

    def check(m: Match) -> Mismatch | None:
        found, axes, count = dims(m["x"]), constant(m["axes"]), m.scalar("count")
        assert count is not None and axes is not None, "the rule requires constants"
        sizes = [found[a] for a in axes.numpy().ravel().tolist()] if found is not None else []
        if not sizes or not all(isinstance(s, int) for s in sizes):
            return Mismatch("unknown-dim", "known sizes of the summed dimensions", m["x"], m["x"])
        wanted = math.prod(s for s in sizes if isinstance(s, int))
        if count and math.isclose(count if divided else 1 / count, wanted, rel_tol=1e-6):
            return None
        return Mismatch("constant", f"the number of summed elements, {wanted}", m["count"], m["count"])

    return check


def _as_mean(op: Builder, m: Match) -> ir.Value:
    return op.ReduceMean(m["x"], m["axes"], keepdims=m.attribute("keepdims"))


def _float(m: Match) -> Mismatch | None:
    v = m.outputs[0]
    return None if v.dtype in _FLOATS else Mismatch("dtype", "a floating-point value", v, v)


_FACTORS = (scalar_factor("outer"), _float, _scaled_before)
_COUNT = (scalar_constant("count"), is_constant("axes"), dtype("x", *_FLOATS))

FACTORS = [
    Rule("constant-factor", _times_factor, _one_factor, _FACTORS),
    Rule("constant-factor", _over_factor, _one_factor, _FACTORS),
]
RULES = [
    Rule("neutral-element", lambda op, x: op.Add(x, 0.0), _same, (_float, _no_epsilon)),
    Rule("neutral-element", lambda op, x: op.Sub(x, 0.0), _same, (_float,)),
    Rule("neutral-element", lambda op, x: op.Mul(x, 1.0), _same, (_float,)),
    Rule("neutral-element", lambda op, x: op.Div(x, 1.0), _same, (_float,)),
    Rule("neutral-element", _negated_twice, _same),
    Rule("neutral-element", _there_and_back, _same, (_lossless,)),
    Rule("neutral-element", lambda op, x: op.Dropout(x), _same, (_inactive,)),
    Rule("neutral-element", lambda op, x, ratio: op.Dropout(x, ratio), _same, (_inactive,)),
    Rule("neutral-element", lambda op, x, ratio, training: op.Dropout(x, ratio, training), _same, (_inactive,)),
    Rule("negative", lambda op, x: op.Mul(x, -1.0), lambda op, m: op.Neg(m["x"]), (_float,)),
    Rule("negative", lambda op, x: op.Div(x, -1.0), lambda op, m: op.Neg(m["x"]), (_float,)),
    Rule("difference", _plus_negative, _difference, (_float,)),
    Rule("sum", _minus_negative, _sum, (_float,)),
    Rule("straight-choice", lambda op, c, a, b: op.Where(c, a, b), _turned, (_inverted,)),
    Rule("sum", lambda op, x, c: op.Sub(x, c), _plus_constant, (is_constant("c"), _float, _small)),
    *FACTORS,
    Rule("common-factor", _common, _common_factor, (scalar_factor("fa", "fb"), _float, _equal)),
    Rule("mean", _mean, _as_mean, (*_COUNT, _counts(divided=False))),
    Rule("mean", _mean_divided, _as_mean, (*_COUNT, _counts(divided=True))),
]
