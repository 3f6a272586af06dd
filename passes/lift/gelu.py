"""GELU written out becomes one Gelu (opset 20).

    erf form   0.5 * x * (1 + erf(x / sqrt(2)))                              exact
    tanh form  0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))     approximate="tanh"

The forms are told by evaluation: a sum, product or quotient of elementwise operators, an Erf or Tanh among them, whose
values on probes are those of GELU, however the constants and factors are arranged. Source: Hendrycks and Gimpel 2016,
arXiv:1606.08415; ONNX operator specification, Gelu-20. The sigmoid form x * sigmoid(1.702 x) is another function,
which no standard operator computes: the target's lowering takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lift.cone import Array, Cone, cones, erf

_FLOATS = {ir.DataType.FLOAT: 1e-5, ir.DataType.FLOAT16: 2**-10, ir.DataType.BFLOAT16: 2**-7}  # rounded constants
_PROBES = np.array([-6.0, -3.1, -2.2, -1.4, -1.0, -0.7, -0.3, -0.01, 0.02, 0.4, 0.8, 1.1, 1.5, 2.3, 3.2, 5.0, 9.0])


def _by_erf(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _by_tanh(x: Array) -> Array:
    gate: Array = 1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * x * gate


def _argument(cone: Cone, gelu: Callable[[Array], Array], tolerance: float) -> ir.Value | None:
    """The value of the cone, the one nearest its source, that the last value is the GELU of."""
    if _told_by(cone, gelu, tolerance, sample=True) is None:  # most cones are something else, and a vector is long
        return None
    return _told_by(cone, gelu, tolerance, sample=False)


def _told_by(cone: Cone, gelu: Callable[[Array], Array], tolerance: float, *, sample: bool) -> ir.Value | None:
    source = _PROBES[:, np.newaxis]
    found = cone.evaluate(source, sample=sample)
    result = found[cone.nodes[-1].outputs[0]]
    for v, x in found.items():
        # The curve approaches x, itself a sum with a bias at times: what is lost there is relative to its terms.
        bound = tolerance * np.maximum(np.abs(x), np.abs(source))
        if result.shape == np.broadcast_shapes(result.shape, x.shape) and np.all(np.abs(result - gelu(x)) <= bound):
            return v
    return None


def _told(root: ir.Node, curve: str, gelu: Callable[[Array], Array]) -> tuple[Cone, ir.Value] | Mismatch:
    """The cone that is GELU and its argument, or why the root ends none."""
    kind = root.outputs[0].dtype
    if kind not in _FLOATS:
        return Mismatch("dtype", " or ".join(t.name for t in _FLOATS), root.outputs[0], root)
    found = list(cones(root, curve))
    if not found:
        return Mismatch("same-value", f"one value that all around {curve} is computed from", root.outputs[0], root)
    for cone in found:
        if (x := _argument(cone, gelu, _FLOATS[kind])) is not None:
            return _escape(cone, curve) or (cone, x)
    return Mismatch("constant", "the numbers of GELU", f"another curve of {found[0].source.name}", root)


def _escape(cone: Cone, curve: str) -> Mismatch | None:
    """With the curve needed elsewhere, Gelu would be computed beside it and not instead of it."""
    bent = cone.below(curve)
    for node in bent - {cone.nodes[-1]}:
        outside = [user.name for user, _ in node.outputs[0].uses() if user not in bent]
        if outside or node.outputs[0].is_graph_output():
            users = ", ".join(map(str, outside)) or "a graph output"
            return Mismatch("escapes", f"{node.outputs[0].name} used only inside", users, node)
    return None


def _rules(name: str, curve: str, gelu: Callable[[Array], Array], approximate: str) -> list[Rule]:
    """One rule per root: a pattern's root is one operator, and the orders end in different nodes."""

    def is_gelu(m: Match) -> Mismatch | None:
        told = _told(m.root, curve, gelu)
        return told if isinstance(told, Mismatch) else None

    def rewrite(op: Builder, m: Match) -> ir.Value:
        told = _told(m.root, curve, gelu)
        assert not isinstance(told, Mismatch), "the rule requires GELU"
        op.stands_for(told[0].nodes)
        return op.Gelu(told[1], approximate=approximate)

    def rooted(kind: str) -> Any:
        return lambda op, a, b: getattr(op, kind)(a, b)

    where: tuple[Requirement, ...] = (is_gelu,)
    return [Rule(name, rooted(kind), rewrite, where, curve) for kind in ("Mul", "Div", "Add")]


RULES = [
    *_rules("gelu", "Erf", _by_erf, "none"),
    *_rules("gelu-tanh", "Tanh", _by_tanh, "tanh"),
]
