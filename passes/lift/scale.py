"""Scales on their way to the attention scores.

The scale of attention stands on the queries, on the keys, half on each, before or after the heads are split, or on
the scores. Here it moves to the scores, where the attention rule expects it: a scalar factor commutes with views
and with products of two activations. It only ever moves towards the outputs, so that moving comes to an end; views
that stood around it meet, and cancel. A minus sign does the same.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.canonicalize.views import VIEWS
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import Either, attr, either
from onnxsmith.passes.engine.require import is_constant, not_constant, scalar_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, rank, scalar, widens


def scaled(op: Any, tag: str, x: Any, factor: Any) -> Either:
    """``x`` times or divided by a scalar; :func:`factor_of` reads the factor."""
    return either(tag, mul=op.Mul(x, factor), div=op.Div(x, factor))


def factor_of(m: Match, tag: str, name: str) -> float:
    """The factor that :func:`scaled` (or nothing) put on a value."""
    if m.tag(tag) not in ("mul", "div"):
        return 1.0
    found = m.scalar(name)
    assert found is not None, "the rule requires a scalar constant"
    return found if m.tag(tag) == "mul" else 1.0 / found


def scalar_factor(*names: str) -> Requirement:
    """Each named value that is bound is a scalar constant other than zero: one can divide by it."""
    is_scalar = scalar_constant(*names)

    def check(m: Match) -> Mismatch | None:
        if (why := is_scalar(m)) is not None:
            return why
        zero = next((m[name] for name in names if m.scalar(name) == 0), None)
        return None if zero is None else Mismatch("constant", "a factor other than zero", zero, zero)

    return check


def unscaled(v: ir.Value) -> tuple[ir.Value, float] | None:
    """y and c of a value that is y * c or y / c. Others may use that value too: it is not part of the match."""
    node = v.producer()
    if node is None or node.domain or node.op_type not in ("Mul", "Div"):
        return None
    c = next((i for i in node.inputs[::-1] if i is not None and scalar(i)), None)
    rest = [i for i in node.inputs if i is not c]
    if c is None or rest[0] is None or widens(c, node) or (node.op_type == "Div" and c is node.inputs[0]):
        return None
    factor = scalar(c)
    assert factor is not None
    return rest[0], factor if node.op_type == "Mul" else 1 / factor


def _product(op: Any, a: Any, b: Any, fa: Any, fb: Any) -> Any:
    left = either("left_scaled", yes=scaled(op, "left", a, fa), no=a)
    right = either("right_scaled", yes=scaled(op, "right", b, fb), no=b)
    return op.MatMul(left, right)


def _any_scale(m: Match) -> Mismatch | None:
    if "yes" in (m.tag("left_scaled"), m.tag("right_scaled")):
        return None
    return Mismatch("op-type", "a scale on one of the factors", "none", m.root)


def _hoisted(op: Builder, m: Match) -> ir.Value:
    factor = factor_of(m, "left", "fa") * factor_of(m, "right", "fb")
    product = op.MatMul(m["a"], m["b"])
    return op.Mul(product, _constant(op, m, factor))


def _constant(op: Builder, m: Match, factor: float) -> ir.Value:
    """In the result's type: what this pass has built before has none yet."""
    dtype = m.outputs[0].dtype
    assert dtype is not None, "the rule requires a floating-point result"
    return op.constant(factor, "scale", dtype.numpy())


def _viewed(kind: str) -> Any:
    return lambda op, x, factor, to: getattr(op, kind)(scaled(op, "scaling", x, factor), to)


def _through_view(op: Builder, m: Match) -> ir.Value:
    view = getattr(op, m.root.op_type)(m["x"], m["to"])
    return op.Mul(view, _constant(op, m, factor_of(m, "scaling", "factor")))


def _negative_viewed(kind: str) -> Any:
    return lambda op, x, to: getattr(op, kind)(op.Neg(x), to)


def _negative_through_view(op: Builder, m: Match) -> ir.Value:
    return op.Neg(getattr(op, m.root.op_type)(m["x"], m["to"]))


def _transposed(op: Any, x: Any, factor: Any) -> Any:
    return op.Transpose(scaled(op, "scaling", x, factor), perm=attr("perm"))


def _through_transpose(op: Builder, m: Match) -> ir.Value:
    turned = op.Transpose(m["x"], perm=m.attribute("perm"))
    return op.Mul(turned, _constant(op, m, factor_of(m, "scaling", "factor")))


def _negative_transposed(op: Any, x: Any) -> Any:
    return op.Transpose(op.Neg(x), perm=attr("perm"))


def _negative_through_transpose(op: Builder, m: Match) -> ir.Value:
    return op.Neg(op.Transpose(m["x"], perm=m.attribute("perm")))


def _shape(op: Any, x: Any) -> Any:
    return op.Shape(x, start=attr("start"), end=attr("end"))


def _shape_of_unscaled(op: Builder, m: Match) -> ir.Value:
    found = unscaled(m["x"])
    assert found is not None, "the rule requires a scale"
    return op.Shape(found[0], start=m.attribute("start"), end=m.attribute("end"))


def _meets_view(m: Match) -> Mismatch | None:
    """What is scaled is a view itself, so that the two may cancel."""
    v: ir.Value | None = m["x"]
    while v is not None and (node := v.producer()) is not None:
        if node.op_type in VIEWS:
            return None
        v = node.inputs[0] if node.op_type == "Neg" else (unscaled(v) or (None, 1.0))[0]
    return Mismatch("op-type", "a view", m["x"], m["x"])


def _is_scaled(m: Match) -> Mismatch | None:
    return None if unscaled(m["x"]) else Mismatch("op-type", "a value with a constant factor", m["x"], m["x"])


def _scaled_twin(op: Any, a: Any, b: Any, fa: Any) -> Any:
    return op.MatMul(scaled(op, "left", a, fa), b)


def _twin(m: Match) -> Mismatch | None:
    """The same product without the scale is computed too: then one product does for both."""
    if any(user.op_type == "MatMul" and list(user.inputs) == [m["a"], m["b"]] for user, _ in m["a"].uses()):
        return None
    return Mismatch("op-type", "the same product without the scale", "none", m.root)


def _biased(op: Any, x: Any, w: Any, factor: Any, bias: Any) -> Any:
    return op.Add(scaled(op, "scaling", op.MatMul(x, w), factor), bias)


def _through_bias(op: Builder, m: Match) -> ir.Value:
    factor, tensor = factor_of(m, "scaling", "factor"), constant(m["bias"])
    assert tensor is not None, "the rule requires a constant bias"
    bias = op.constant((tensor.numpy() / factor).astype(tensor.dtype.numpy()), "bias")
    return op.Mul(op.Add(op.MatMul(m["x"], m["w"]), bias), _constant(op, m, factor))


def _vector(m: Match) -> Mismatch | None:
    """A bias, which is copied, and never a weight."""
    return None if rank(m["bias"]) == 1 else Mismatch("rank", "a bias of one dimension", m["bias"], m["bias"])


def _float(m: Match) -> Mismatch | None:
    v = m.outputs[0]
    if v.dtype is not None and v.dtype.is_floating_point():
        return None
    return Mismatch("dtype", "a floating-point value", v, v)


_VIEW = (scalar_factor("factor"), _float)

TWINS = [Rule("twin-scale", _scaled_twin, _hoisted, (scalar_factor("fa"), _float, _twin))]
_TARGETED = ("Reshape", "Squeeze", "Unsqueeze")  # views with their target or axes as an input


def _through_views(*where: Requirement) -> list[Rule]:
    """A factor and a minus sign before a view, moved behind it."""
    factor, negative = (*_VIEW, *where), (_float, *where)
    return [
        *(Rule("view-scale", _viewed(kind), _through_view, factor) for kind in _TARGETED),
        *(Rule("view-scale", _negative_viewed(kind), _negative_through_view, negative) for kind in _TARGETED),
        Rule("view-scale", _transposed, _through_transpose, factor),
        Rule("view-scale", _negative_transposed, _negative_through_transpose, negative),
    ]


BETWEEN_VIEWS = _through_views(_meets_view)  # early: elsewhere, the factor may belong to an activation
RULES = [
    Rule(
        "scores-scale",
        _product,
        _hoisted,
        (_any_scale, scalar_factor("fa", "fb"), not_constant("a", "b"), _float),
    ),
    *_through_views(),
    Rule("shape-source", _shape, _shape_of_unscaled, (_is_scaled,)),
    Rule("bias-scale", _biased, _through_bias, (*_VIEW, is_constant("w", "bias"), _vector)),
]
