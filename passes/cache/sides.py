"""The two sides of an encoder-decoder: what depends on the text that it writes, and what on its source alone.

Shapes: B batch, R source tokens, S tokens of the text, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.last import find_logits
from onnxsmith.passes.cache.rowwise import is_attention
from onnxsmith.passes.cache.text import Refused, Text, find_texts
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.values import attribute, dims


@dataclass(frozen=True)
class Crossing:
    """A value of the source that the text's side reads. ``heads`` of one [B, R, H*D], which is to be [B, H, R, D]."""

    value: ir.Value
    role: str
    heads: int | None = None

    @property
    def past(self) -> str:
        """What the decoder calls it."""
        return f"past_key_values.{self.role}"

    @property
    def present(self) -> str:
        """What the encoder calls it."""
        return f"present.{self.role}"


class Sides:
    """``text`` is what the logits go along, ``source`` the other one; Refused where that cannot be told."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph = model, model.graph
        texts = find_texts(self.graph)
        along = [text for text in texts if _goes_along(self.graph, text)]
        if len(along) != 1:
            raise Refused("the logits go along neither or both of two texts; name their dimensions apart with --dims")
        (self.text,) = along
        self.source = next(text for text in texts if text is not self.text)
        find_logits(self.graph, self.text)

    @property
    def told(self) -> ir.Value:
        """The input that tells the batch and the length of the source, the mask where there is one."""
        return self.source.mask or self.source.ids

    def tell_lengths(self) -> None:
        """Let every length be read from an input, in place: a value of one side may have a length of the other's."""
        op, names = Builder(), Names(self.model)
        for node in [n for n in self.graph if n.op_type == "Shape" and not n.domain]:
            start, end = attribute(node, "start") or 0, attribute(node, "end")
            found = (dims(node.inputs[0]) or [None])[start:end]
            if not found or not all(self._knows(d) for d in found):
                continue
            parts = [self._length(op, d) for d in found]
            made = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)
            made.type, made.shape = node.outputs[0].type, node.outputs[0].shape
            node.outputs[0].replace_all_uses_with(made)
        names.adopt(self.graph, op)
        self.graph.extend(op.nodes)
        self.graph.sort()

    def crossings(self) -> list[Crossing]:
        """Values of the source's ids that nodes of the text read, keys and values of attention first."""
        of_text = self._behind(self.text.inputs)
        of_source = self._behind([self.source.ids]) - of_text
        read = [v for v in self._read(of_text) if v in of_source]
        if self.graph.outputs[0] not in of_text or self.source.ids in read or not read:
            raise Refused("no encoder and decoder: one of two texts is not read apart from the other")
        found = {c.value: c for c in self._keys_and_values(of_text, of_source)}
        others = [v for v in read if v not in found]
        return [*found.values(), *(Crossing(v, f"{i}.encoder.states") for i, v in enumerate(others))]

    def _keys_and_values(self, of_text: set[ir.Value], of_source: set[ir.Value]) -> Iterable[Crossing]:
        nodes = (n for n in self.graph if is_attention(n) and n.outputs[0] in of_text)
        for layer, node in enumerate(n for n in nodes if of_source.issuperset(n.inputs[1:3])):
            for part, v in zip(("key", "value"), node.inputs[1:3], strict=True):
                assert v is not None, "the operator requires it"
                heads = attribute(node, "kv_num_heads") if len(dims(v) or ()) == 3 else None
                yield Crossing(v, f"{layer}.encoder.{part}", heads)

    def _knows(self, dim: int | str | None) -> bool:
        names = (self.source.sequence, self.source.batch, self.text.sequence, self.text.batch)
        return isinstance(dim, int) or any(dim in name for name in names)

    def _length(self, op: Builder, dim: int | str | None) -> ir.Value:
        if isinstance(dim, int):
            return op.constant([dim], "length", np.int64)
        if dim in self.text.sequence:
            return op.Shape(self.text.ids, start=1, end=2)
        axis = 1 if dim in self.source.sequence else 0
        return op.Shape(self.told, start=axis, end=axis + 1)

    def _behind(self, inputs: Iterable[ir.Value]) -> set[ir.Value]:
        """What depends on them, but for lengths of the source."""
        found = set(inputs)
        for node in self.graph:
            measures = node.op_type == "Shape" and node.inputs[0] is self.told
            if not measures and any(v in found for v in node.inputs):
                found.update(node.outputs)
        return found

    def _read(self, of_text: set[ir.Value]) -> dict[ir.Value, None]:
        """What nodes of the text read, in order."""
        readers = (node for node in self.graph if any(v in of_text for v in node.outputs))
        return dict.fromkeys(v for node in readers for v in node.inputs if v is not None)


def _goes_along(graph: ir.Graph, text: Text) -> bool:
    found = dims(graph.outputs[0]) or []
    return len(found) > 1 and found[1] in text.sequence
