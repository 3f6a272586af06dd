"""Cones of lengths and masks: what a graph computes without reading a token, once more at another length.

Positions, masks, rotary angles and biases depend on how long the text is and on what of it is padding, never on its
words. With a cache there are two lengths, that of the new tokens and that of all, and a cone is copied at the one that
its reader needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.text import Refused, Text
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.values import attribute, dims

NEW, ALL = "new", "all"  # the S new tokens, and all T of them
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


class Cones:
    """``hidden`` are the values that depend on the ids, ``nodes`` those that depend on lengths or the mask alone.

    What depends on another text alone is neither: it is the same at both lengths.
    """

    def __init__(self, graph: ir.Graph, text: Text) -> None:
        self.text = text
        self.hidden: set[ir.Value] = {text.ids}
        self.nodes: set[ir.Node] = set()
        other = set(text.source)
        for node in graph:
            if any(a.type in _GRAPHS for a in node.attributes.values()):
                raise Refused(f"{node.op_type} {node.name} has a graph of its own")
            if node.op_type == "Shape" and not node.domain and (node.inputs[0] not in other or self._is_shared(node)):
                self.nodes.add(node)
            elif any(v in self.hidden for v in node.inputs):
                self.hidden.update(node.outputs)
            elif any(v is not None and (v is text.mask or self.holds(v)) for v in node.inputs):
                self.nodes.add(node)
            elif any(v in other for v in node.inputs):
                other.update(node.outputs)

    def _is_shared(self, node: ir.Node) -> bool:
        """Whether a length of another text is this one's as well, which is the batch; it is read from the ids then."""
        told = (dims(node.inputs[0]) or [None])[attribute(node, "start") or 0 : attribute(node, "end")]
        return all(isinstance(d, str) and self.text.is_batch(d) for d in told)

    def holds(self, v: ir.Value | None) -> bool:
        return v is not None and v.producer() in self.nodes


class Copies:
    """The cones at both lengths, built as they are asked for; ``ids`` and ``mask`` stand in for the text's own."""

    def __init__(self, cones: Cones, op: Builder, ids: ir.Value, mask: ir.Value) -> None:
        self.cones, self.op, self.ids, self.mask = cones, op, ids, mask
        self._made: dict[tuple[ir.Value, str], ir.Value] = {}

    def at(self, v: ir.Value, length: str) -> ir.Value:
        """The value at that length; itself where it depends on none."""
        if v is self.cones.text.mask:
            if length == NEW:
                raise Refused("a shape depends on the numbers of the mask")
            return self.mask
        node = v.producer()
        if node is None or node not in self.cones.nodes:
            return v
        if (v, length) not in self._made:
            outputs = [self._shape(node, length)] if node.op_type == "Shape" else self._copy(node, length)
            for own, made in zip(node.outputs, outputs, strict=True):
                made.type = own.type
                self._made[own, length] = made
        return self._made[v, length]

    def _copy(self, node: ir.Node, length: str) -> Sequence[ir.Value]:
        inputs = [None if v is None else self.at(v, length) for v in node.inputs]
        made = self.op.several(node.op_type, len(node.outputs), *inputs, domain=node.domain)
        producer = made[0].producer()
        assert producer is not None
        producer.attributes.update(node.attributes)
        return made

    def _shape(self, node: ir.Node, length: str) -> ir.Value:
        source = node.inputs[0]
        assert source is not None
        start, end = attribute(node, "start") or 0, attribute(node, "end")
        if length == NEW and source in self.cones.hidden and source is not self.cones.text.ids:
            return self.op.Shape(source, start=start, end=end)
        parts = [self.length(d, length) for d in (dims(source) or [None])[start:end]]
        return parts[0] if len(parts) == 1 else self.op.Concat(*parts, axis=0)

    def length(self, dim: int | str | None, length: str) -> ir.Value:
        """A dimension of the plain model as a vector of one."""
        text = self.cones.text
        if isinstance(dim, int):
            return self.op.constant([dim], "length", np.int64)
        if dim in text.sequence:
            return self.op.Shape(self.mask if length == ALL else self.ids, start=1, end=2)
        if dim in text.batch:
            return self.op.Shape(self.ids, start=0, end=1)
        for v in text.source if dim is not None else ():
            if dim in (found := dims(v) or []):
                return self.op.Shape(v, start=found.index(dim), end=found.index(dim) + 1)
        raise Refused(f"a length is computed from a dimension {dim or 'without a name'}")
