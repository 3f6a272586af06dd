"""Sizes from their source: what is computed from some tensor's shape becomes a constant, or is read from an input.

q.shape[-1] ** -0.5                    Shape, Slice, Cast and Pow, however fixed the size of a head is
mask.expand(scores.shape[-2], ...)     keeps the scores from being fused, though it is the input's length
q.shape[-2] == k.shape[-2]             chooses a branch that is never taken
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.values import attribute, constant, dims, rank
from onnxsmith.passes.shapes import Size, evaluate


def fix(model: ir.Model) -> bool:
    """Replace sizes that are numbers, or dimensions of an input, at their last use; in place. Returns whether any."""
    sources = _Sources(model.graph)
    found = False
    for graph in model.graphs():
        for node in list(graph):
            found |= _fixed(graph, node, sources)
    return found


class _Sources:
    """The named dimensions of the graph's inputs, each read by one node at the start of the graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.where: dict[str, tuple[ir.Value, int]] = {}
        for v in graph.inputs:
            for axis, dim in enumerate(dims(v) or []):
                if isinstance(dim, str) and not v.is_initializer():
                    self.where.setdefault(dim, (v, axis))
        self.read: dict[tuple[str, int], ir.Value] = {}

    def sizes(self, v: ir.Value) -> list[Size] | None:
        """The elements of a scalar or vector, when each is a number or a dimension of an input."""
        found = evaluate(v) if rank(v) in (0, 1) else None
        return found if found and all(map(self._has, found)) else None

    def _has(self, size: Size) -> bool:
        return size.known is not None or (size.factor == 1 and len(size.names) == 1 and size.names[0] in self.where)

    def vector(self, name: str) -> ir.Value:
        """The dimension as a vector of one."""
        if (name, 1) not in self.read:
            v, axis = self.where[name]
            node = ir.node("Shape", [v], {"start": axis, "end": axis + 1})
            self.read[name, 1] = self._add(node, name, ir.Shape([1]), after=None)
        return self.read[name, 1]

    def scalar(self, name: str) -> ir.Value:
        if (name, 0) not in self.read:
            vector = self.vector(name)
            node = ir.node("Squeeze", [vector])
            self.read[name, 0] = self._add(node, name, ir.Shape([]), after=vector.producer())
        return self.read[name, 0]

    def _add(self, node: ir.Node, name: str, shape: ir.Shape, after: ir.Node | None) -> ir.Value:
        if after is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(after, node)
        result = node.outputs[0]
        result.shape, result.dtype = shape, ir.DataType.INT64
        node.name = f"size_{name}_{len(shape)}"
        result.name = f"{node.name}_out"
        return result


def _fixed(graph: ir.Graph, node: ir.Node, sources: _Sources) -> bool:
    v = node.outputs[0] if len(node.outputs) == 1 else None
    if v is None or v.is_graph_output() or constant(v) is not None or rank(v) not in (0, 1):
        return False
    if count := _always_equal(node):
        v.replace_all_uses_with(_constant(graph, v, [1] * count))
        return True
    found = sources.sizes(v)
    if not found or _from_source(node) or all(sources.sizes(user.outputs[0]) for user, _ in v.uses()):
        return False
    if all(size.known is not None for size in found):
        v.replace_all_uses_with(_constant(graph, v, [size.factor for size in found]))
        return True
    if v.dtype != ir.DataType.INT64:
        return False
    v.replace_all_uses_with(_gathered(graph, node, found, sources))
    return True


def _always_equal(node: ir.Node) -> int:
    """How many equal sizes it compares, or 0: sizes of different names may be equal too, or may not."""
    if node.op_type != "Equal" or node.domain or not node.outputs[0].uses():
        return 0
    a, b = (evaluate(v) for v in node.inputs)
    return len(a) if a and a == b and rank(node.inputs[0]) == rank(node.inputs[1]) else 0


def _from_source(node: ir.Node | None) -> bool:
    """Whether it is already in the form that this step makes."""
    if node is None or node.domain:
        return False
    if node.op_type == "Shape":
        length = (attribute(node, "end") or 0) - (attribute(node, "start") or 0)
        return length == 1 and node.inputs[0] is not None and node.inputs[0].is_graph_input()
    if node.op_type not in ("Squeeze", "Concat"):
        return False
    return all(constant(v) is not None or (v is not None and _from_source(v.producer())) for v in node.inputs)


def _constant(graph: ir.Graph, v: ir.Value, numbers: Sequence[int]) -> ir.Value:
    assert v.dtype is not None, "only integers are evaluated"
    array = np.array(numbers, dtype=v.dtype.numpy())
    tensor = ir.tensor(array if rank(v) else array[0], name=f"{v.name}_known")
    known = ir.Value(name=tensor.name, shape=v.shape, type=v.type, const_value=tensor)
    graph.register_initializer(known)
    return known


def _gathered(graph: ir.Graph, node: ir.Node, found: Sequence[Size], sources: _Sources) -> ir.Value:
    v = node.outputs[0]
    if rank(v) == 0:
        return sources.scalar(found[0].names[0])
    parts = []
    for i, size in enumerate(found):
        part = ir.Value(name=f"{v.name}_{i}", shape=ir.Shape([1]), type=v.type)
        parts.append(_constant(graph, part, [size.factor]) if size.known is not None else sources.vector(size.names[0]))
    if len(parts) == 1:
        return parts[0]
    joined = ir.node("Concat", parts, {"axis": 0}, name=f"{node.name}_sizes")
    graph.insert_after(node, joined)
    result = joined.outputs[0]
    result.name, result.shape, result.type = f"{v.name}_sizes", v.shape, v.type
    return result
