"""Whether two lifted graphs are the same up to names, the order of commuted operands and rounding of constants.

Both are walked from their outputs at once. A mask of Attention keeps its own values when it is lifted, since they
decide what becomes of a row with no allowed key; so two masks are compared by what they say on random inputs: the
same keys allowed, with the same numbers on them. And a scale of attention may stand in the weights of the queries:
what was folded into weights cannot be told from them, so that operator and weights are compared together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.session import run_model
from onnxsmith.passes.engine.match import COMMUTATIVE
from onnxsmith.passes.engine.values import attribute, constant, show

BLOCKED = -1e4 / 2  # what is below never passes a softmax
RELATIVE = 1e-5  # folding in float32 may round a few times


@dataclass(frozen=True)
class Graph:
    """A lifted model, and what each mask in it says: a number for an allowed key, minus infinity for a blocked one."""

    model: ir.Model
    masks: dict[ir.Node, NDArray[Any]]


def evaluated(model: ir.Model, feeds: dict[str, NDArray[Any]]) -> Graph:
    """Run the model with its masks as further outputs."""
    nodes = {n: n.inputs[3] for n in model.graph if n.op_type == "Attention" and len(n.inputs) > 3}
    copy = model.clone()
    values = {v.name: v for n in copy.graph for v in n.outputs} | {v.name: v for v in copy.graph.inputs}
    wanted = [str(v.name) for v in nodes.values() if v is not None]
    outputs = [str(v.name) for v in copy.graph.outputs]
    copy.graph.outputs.extend(values[name] for name in dict.fromkeys(wanted) if name not in outputs)
    results = run_model(copy)(feeds) if wanted else {}
    return Graph(model, {n: _allowed(results[str(v.name)]) for n, v in nodes.items() if v is not None})


def _allowed(mask: NDArray[Any]) -> NDArray[Any]:
    if mask.dtype == bool:
        mask = np.where(mask, 0.0, -np.inf)
    return np.where(mask <= BLOCKED, -np.inf, mask)


def difference(one: Graph, other: Graph) -> str | None:
    """The first difference that is found, or None."""
    first, second = one.model, other.model
    walk = _Walk({**one.masks, **other.masks})
    names = [[str(v.name) for v in values] for m in (first, second) for values in (m.graph.inputs, m.graph.outputs)]
    if names[:2] != names[2:]:
        return f"inputs and outputs {names[:2]} against {names[2:]}"
    for a, b in zip(first.graph.outputs, second.graph.outputs, strict=True):
        if not walk.same(a, b):
            return walk.why
    counts = [Counter(n.op_type for n in _reached(m)) for m in (first, second)]
    return None if counts[0] == counts[1] else f"only here {counts[0] - counts[1]}, only there {counts[1] - counts[0]}"


@dataclass
class _Walk:
    masks: dict[ir.Node, NDArray[Any]]
    known: dict[tuple[ir.Value, ir.Value], bool] = field(default_factory=dict)
    why: str = ""

    def same(self, a: ir.Value | None, b: ir.Value | None) -> bool:
        if a is None or b is None:
            return a is b
        if (a, b) not in self.known:
            self.known[a, b] = self._same(a, b)
        return self.known[a, b]

    def _same(self, a: ir.Value, b: ir.Value) -> bool:
        one, other = a.producer(), b.producer()
        if one is not None and other is not None:
            return a.index() == b.index() and self._nodes(one, other)
        if constant(a) is not None and constant(b) is not None:
            return _close(a, b) or self._differ(a, b)
        given = one is None and other is None and constant(a) is None and constant(b) is None
        return (given and a.name == b.name) or self._differ(a, b)

    def _differ(self, a: ir.Value | None, b: ir.Value | None) -> bool:
        self.why = self.why or f"{show(a)} against {show(b)}"
        return False

    def _nodes(self, a: ir.Node, b: ir.Node) -> bool:
        if (a.op_type, a.domain, len(a.inputs)) != (b.op_type, b.domain, len(b.inputs)):
            return self._differ(a.outputs[0], b.outputs[0])
        if a.op_type == "Attention":
            return self._attentions(a, b) or self._differ(a.outputs[0], b.outputs[0])
        if not _same_attributes(a, b):
            return self._differ(a.outputs[0], b.outputs[0])
        if all(self.same(x, y) for x, y in zip(a.inputs, b.inputs, strict=True)):
            return True
        flipped = b.inputs[::-1] if a.op_type in COMMUTATIVE else ()
        return bool(flipped) and all(self.same(x, y) for x, y in zip(a.inputs, flipped, strict=True))

    def _attentions(self, a: ir.Node, b: ir.Node) -> bool:
        scales = [attribute(n, "scale") for n in (a, b)]
        if a.attributes.keys() != b.attributes.keys() or not _same_attributes(a, b, but="scale"):
            return False
        if a in self.masks and not np.array_equal(*np.broadcast_arrays(self.masks[a], self.masks[b])):
            return False
        (q, k, v), (other_q, other_k, other_v) = a.inputs[:3], b.inputs[:3]
        if not (self.same(k, other_k) and self.same(v, other_v)):
            return False
        return self.same(q, other_q) if _same_value(*scales) else self._scaled(q, other_q, scales[0] / scales[1])

    def _scaled(self, a: ir.Value | None, b: ir.Value | None, ratio: float) -> bool:
        """Whether ``b`` is ``a`` times the ratio, since the weights behind it are."""
        if a is None or b is None:
            return False
        one, other = a.producer(), b.producer()
        if one is None or other is None:
            return _close(a, b, ratio)
        if one.op_type != other.op_type or not _same_attributes(one, other):
            return False
        (x, y), (other_x, other_y) = _operands(one), _operands(other)
        if one.op_type == "Add":
            return self._scaled(x, other_x, ratio) and self._scaled(y, other_y, ratio)
        if one.op_type == "MatMul":
            return self.same(x, other_x) and self._scaled(y, other_y, ratio)
        return one.op_type in ("Reshape", "Transpose") and self.same(y, other_y) and self._scaled(x, other_x, ratio)


def _operands(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """The first two inputs; of a sum, the constant last."""
    first, second = (*node.inputs, None)[:2]
    return (second, first) if node.op_type == "Add" and constant(first) is not None else (first, second)


def _same_attributes(a: ir.Node, b: ir.Node, but: str = "") -> bool:
    names = {*a.attributes, *b.attributes} - {but}
    return all(_same_value(attribute(a, n), attribute(b, n)) for n in names)


def _same_value(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return bool(np.isclose(a, b, rtol=RELATIVE, atol=0))
    return a == b


def _close(a: ir.Value, b: ir.Value, ratio: float = 1.0) -> bool:
    one, other = constant(a), constant(b)
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    x, y = one.numpy() * one.numpy().dtype.type(ratio), other.numpy()
    largest = float(np.abs(y).max(initial=0)) if one.dtype.is_floating_point() else 0.0
    return bool(np.allclose(x, y, rtol=RELATIVE, atol=RELATIVE * largest if np.isfinite(largest) else 0))


def _reached(model: ir.Model) -> Iterator[ir.Node]:
    """Every node that an output needs, the cones of masks left out."""
    seen, stack = set(), list(model.graph.outputs)
    while stack:
        node = stack.pop().producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        visible = node.inputs[:3] if node.op_type == "Attention" else node.inputs
        stack += [v for v in visible if v is not None]
