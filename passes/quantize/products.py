"""Products with constant weights, the sites that every quantized format shares: what they look like, which count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import either
from onnxsmith.passes.engine.require import dtype, is_constant, not_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, rank

Array = np.ndarray[Any, Any]
_SMALLEST = 32  # a product this thin costs more to quantize than to compute


def _product(op: Any, x: Any, weight: Any) -> Any:
    """A head that is tied to its embedding table reads it through a Transpose."""
    return op.MatMul(x, either("layout", straight=weight, turned=op.Transpose(weight, perm=[1, 0])))


def _product_and_bias(op: Any, x: Any, weight: Any, bias: Any) -> Any:
    return op.Add(_product(op, x, weight), bias)


def rules(name: str, rewrite: Callable[[Builder, Match], ir.Value], *further: Requirement) -> tuple[Rule, ...]:
    """A rule for each form of the product; ``further`` requirements are the format's own, such as its kernel.

    ``rewrite`` finds x [.., K] under "x"; :func:`matrix` gives the weights, and :func:`bias` what is added.
    """
    where = (
        is_constant("weight", "bias"),
        not_constant("x"),
        dtype("x", ir.DataType.FLOAT),
        _bias_of_columns,
        _wide_enough,
        *further,
        finite("weight"),
    )
    return (
        Rule(name, _product_and_bias, rewrite, where, anchor="MatMul"),
        Rule(name, _product, rewrite, (*where, _without_bias), anchor="MatMul"),
    )


def matrix(m: Match) -> Array:
    """The weights W [K, N] of a matched product, however the graph holds them."""
    weight = constant(m["weight"])
    assert weight is not None, "the rule requires a constant"
    return weight.numpy().T if m.tag("layout") == "turned" else weight.numpy()


def bias(op: Builder, m: Match) -> ir.Value | None:
    """What is added to the columns of a matched product, [N], if anything is."""
    found = m.get("bias")
    if found is None or rank(found) == 1:
        return found
    tensor = constant(found)
    assert tensor is not None, "the rule requires a constant"
    return op.constant(tensor.numpy().reshape(-1), f"{found.name}_flat")


def finite(name: str) -> Requirement:
    """No infinity and no NaN among the named constant's numbers: one of them would take the scale of all others."""

    def check(m: Match) -> Mismatch | None:
        tensor = constant(m[name])
        assert tensor is not None, "the rule requires a constant"
        if np.isfinite(tensor.numpy()).all():
            return None
        return Mismatch("constant", "finite weights", "an infinity or NaN", m[name])

    return check


def _wide_enough(m: Match) -> Mismatch | None:
    tensor = constant(m["weight"])
    assert tensor is not None, "the rule requires a constant"
    if min(tensor.shape.numpy()) >= _SMALLEST:
        return None
    return Mismatch("cost", f"a weight of at least {_SMALLEST} x {_SMALLEST}", m["weight"], m["weight"])


def _bias_of_columns(m: Match) -> Mismatch | None:
    """The weights are a matrix, and the kernel takes a bias with one number for each of its N columns."""
    shape, added = dims(m["weight"]), m.get("bias")
    if shape is None or len(shape) != 2:
        return Mismatch("rank", "weights of two dimensions", m["weight"], m["weight"])
    if added is None or _is_bias(m, added):
        return None
    return Mismatch("shape", "one bias for each column", added, added)


def _without_bias(m: Match) -> Mismatch | None:
    """A product that only a bias follows is taken together with it."""
    if len(m.outputs[0].uses()) > 1 or m.outputs[0].is_graph_output():
        return None
    for user, i in m.outputs[0].uses():
        if user.op_type == "Add" and _is_bias(m, user.inputs[1 - i]):
            return Mismatch("op-type", "a product without a bias", user.op_type, user)
    return None


def _is_bias(m: Match, v: ir.Value | None) -> bool:
    """A constant with one number for each column, and no more dimensions than the product has."""
    shape, found = dims(m["weight"]) or [], dims(v) or []
    columns = shape[0 if m.tag("layout") == "turned" else 1]
    return constant(v) is not None and found == [1] * (len(found) - 1) + [columns] and len(found) <= (rank(m["x"]) or 1)
