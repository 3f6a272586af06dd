"""The rows of the new tokens: a cone at all T tokens, cut down to the last S of them along one axis.

Cutting the result is always right. It is cheap when the cut is made at the sources instead and the rest is computed for
the new tokens alone, so a cut moves up through every operator that leaves rows apart.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.cones import ALL, NEW, Copies
from onnxsmith.passes.cache.positions import Positions
from onnxsmith.passes.cache.rowwise import ELEMENTWISE
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.engine.values import attribute, constant, dims, rank
from onnxsmith.passes.shapes import ONE, product, sizes

_END = np.iinfo(np.int64).max


class Rows:
    """Rows of values of the cones. With ``positions``, a value that says where a token stands is read from that input.

    ``cut`` tells whether anything was cut: then the rows are those of the last columns, wherever padding stands.
    """

    def __init__(self, copies: Copies, positions: Positions | None = None) -> None:
        self.copies, self.op, self.positions = copies, copies.op, positions
        self.cut = False
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}
        self._count: ir.Value | None = None

    def of(self, v: ir.Value, axis: int) -> ir.Value:
        """The value with S in place of T along ``axis``."""
        if (v, axis) not in self._made:
            made = self._built(v, axis)
            made.type = v.type
            self._made[v, axis] = made
        return self._made[v, axis]

    def _built(self, v: ir.Value, axis: int) -> ir.Value:
        if self.positions is not None and (given := self.positions.as_input(v, axis, self.op)) is not None:
            return given
        node = v.producer()
        if node is not None and node in self.copies.cones.nodes and not node.domain:
            made = self._perhaps(node, v.index() or 0, axis)
            if made is not None:
                return made
        self.cut = True
        return self._last(self.copies.at(v, ALL), axis)

    def _perhaps(self, node: ir.Node, index: int, axis: int) -> ir.Value | None:
        """The node on the rows of what it reads; None where it reads something of another or no known length."""
        try:
            return self._part(node, index, axis) if node.op_type == "Split" else self._moved(node, axis)
        except Refused:
            return None

    def _last(self, v: ir.Value, axis: int) -> ir.Value:
        if self._count is None:
            self._count = self.op.Neg(self.op.Shape(self.copies.ids, start=1, end=2))
        end, at = self.op.constant([_END], "end", np.int64), self.op.constant([axis], "axis", np.int64)
        return self.op.Slice(v, self._count, end, at)

    def _moved(self, node: ir.Node, axis: int) -> ir.Value | None:
        """The node on the rows of what it reads, or None where they cannot be told."""
        first = node.inputs[0] if node.inputs else None
        if node.op_type in ELEMENTWISE:
            return self._again(node, {i: axis - (rank(node.outputs[0]) or 0) for i in range(len(node.inputs))})
        if node.op_type == "Transpose":
            return self._again(node, {0: attribute(node, "perm")[axis] - (rank(first) or 0)})
        if node.op_type in ("Unsqueeze", "Squeeze", "Reshape"):
            return self._viewed(node, axis)
        if node.op_type == "Concat" and attribute(node, "axis") % (rank(node.outputs[0]) or 1) != axis:
            return self._again(node, {i: axis - (rank(node.outputs[0]) or 0) for i in range(len(node.inputs))})
        if node.op_type == "Gather" and not attribute(node, "axis") and constant(first) is not None:
            own = rank(node.inputs[1]) or 0
            return self._again(node, {1: axis - own}) if axis < own else None
        if node.op_type in ("Tile", "Slice"):
            return self._again(node, {0: axis - (rank(first) or 0)}) if self._keeps(node, axis) else None
        if node.op_type == "MatMul":
            return self._product(node, axis)
        return self._expanded(node, axis) if node.op_type == "Expand" else None

    def _keeps(self, node: ir.Node, axis: int) -> bool:
        """Whether a Tile or Slice leaves that axis as it is, by constants alone."""
        told = [constant(v) for v in node.inputs[1:]]
        if any(tensor is None for tensor in told):
            return False
        numbers = [[int(n) for n in tensor.numpy().ravel()] for tensor in told if tensor is not None]
        if node.op_type == "Tile":
            return numbers[0][axis] == 1
        wide = rank(node.outputs[0]) or 1
        return len(numbers) > 2 and axis not in {a % wide for a in numbers[2]}

    def _again(self, node: ir.Node, ends: dict[int, int]) -> ir.Value:
        """The node once more, on rows of the inputs ``ends`` along those axes, counted from the end."""
        return self._like(node, *(self._input(v, ends.get(i)) for i, v in enumerate(node.inputs)))

    def _like(self, node: ir.Node, *inputs: ir.Value | None) -> ir.Value:
        made = self.op.several(node.op_type, 1, *inputs)[0]
        producer = made.producer()
        assert producer is not None
        producer.attributes.update(node.attributes)
        return made

    def _input(self, v: ir.Value | None, end: int | None) -> ir.Value | None:
        """An input whose dimension there is one, or that has none, meets every row alike."""
        if v is None:
            return None
        found = dims(v)
        if found is None:
            raise Refused(f"the rank of {v.name} is unknown")
        if end is None or -end > len(found) or found[end] == 1:
            return self.copies.at(v, ALL)
        if found[end] not in self.copies.cones.text.sequence:
            raise Refused(f"dimension {end} of {v.name} is {found[end]}, and not the length of the text")
        return self.of(v, len(found) + end)

    def _viewed(self, node: ir.Node, axis: int) -> ir.Value | None:
        """A view with the new tokens' own target, where it keeps what stands behind the rows."""
        source, target = node.inputs
        before, after = sizes(source), sizes(node.outputs[0])
        if source is None or target is None or before is None or after is None:
            return None
        at = [i for i, size in enumerate(before) if size == after[axis]]
        if len(at) != 1 or product(before[at[0] + 1 :]) != product(after[axis + 1 :]):
            return None
        wanted = self.copies.at(target, NEW)
        if node.op_type == "Reshape" and axis and before[0] == after[0] == ONE:
            wanted = self._of_each_text(wanted)
        return self._like(node, self._input(source, at[0] - len(before)), wanted)

    def _of_each_text(self, target: ir.Value) -> ir.Value:
        """The target with the batch as it comes: positions have a row for each text, where one did for all."""
        kept, one = self.op.constant([0], "batch", np.int64), self.op.constant([1], "one", np.int64)
        rest = self.op.Slice(target, one, self.op.constant([_END], "end", np.int64), kept)
        return self.op.Concat(kept, rest, axis=0)

    def _part(self, node: ir.Node, index: int, axis: int) -> ir.Value | None:
        """One output of a Split along another axis."""
        source, wide = node.inputs[0], rank(node.outputs[0]) or 0
        if source is None or attribute(node, "axis") % (wide or 1) == axis:
            return None
        inputs = [
            self._input(source, axis - wide),
            *(None if v is None else self.copies.at(v, ALL) for v in node.inputs[1:]),
        ]
        made = self.op.several("Split", len(node.outputs), *inputs)
        made[0].producer().attributes.update(node.attributes)  # type: ignore[union-attr]
        for own, part in zip(node.outputs, made, strict=True):
            part.type = own.type
        return made[index]

    def _product(self, node: ir.Node, axis: int) -> ir.Value | None:
        wide, ranks = rank(node.outputs[0]) or 0, [rank(v) or 0 for v in node.inputs]
        if min(ranks) < 2 or axis < wide - 2:
            return None
        return self._again(node, {1: -1} if axis == wide - 1 else {0: -2})

    def _expanded(self, node: ir.Node, axis: int) -> ir.Value | None:
        """To the same dimensions with S in place of T, on the rows of what is expanded."""
        source, wanted = node.inputs[0], dims(node.outputs[0])
        if source is None or not wanted:
            return None
        parts = [self.copies.length(d, NEW if i == axis else ALL) for i, d in enumerate(wanted)]
        return self.op.Expand(self._input(source, axis - len(wanted)), self.op.Concat(*parts, axis=0))
