"""Biases on the scores (T5's, ALiBi) for a cache in place: the mask's rows at the positions of the tokens.

In the layout *concat* the new tokens are the last S of T columns in every row. In place each row of the batch ends
elsewhere, and its tokens want other rows of the bias. What computes the mask is copied for one text of T tokens without
padding, and where it takes the last S rows the copy takes those of all positions, B*S of them. That this gives the
mask's own numbers is found by evaluating both. Sources: Raffel et al. 2020, arXiv:1910.10683; Press et al. 2022,
arXiv:2108.12409.

Shapes: B batch, S new tokens, T all tokens, H heads or 1.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.probe import label, padded, with_sources
from onnxsmith.passes.cache.record import Cache
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.values import attribute, constant, dims
from onnxsmith.passes.lower.window import LENGTH, Rows

_CLOSE = 1e-6  # of the same arithmetic in another order


class Biases:
    """What the masks of a model with a cache add to the scores, built as it is asked for."""

    def __init__(self, op: Builder, graph: ir.Graph, cache: Cache) -> None:
        self._op, self._graph, self._cache = op, graph, cache
        given = {v.name: v for v in graph.inputs}
        self._ids, self._mask = given[cache.ids], given[cache.mask]
        self._made: dict[ir.Value, ir.Value] = {}

    def of(self, mask: ir.Value) -> ir.Value:
        """From a mask [B|1, H, S, T] the bias [B, H, S, T] of compact rows. Refused where places do not tell it."""
        if mask not in self._made:
            self._made[mask] = self._built(mask)
        return self._made[mask]

    def _built(self, mask: ir.Value) -> ir.Value:
        op, found = self._op, dims(mask) or []
        if len(found) != 4 or not isinstance(heads := found[1], int):
            raise Refused(f"the mask {mask.name} has no known number of heads, {found}")
        rows = _Copy(op, self._ids, self._mask, mask).made
        wanted = (op.constant([heads], "heads", np.int64), op.Shape(self._ids), op.constant([-1], "rest", np.int64))
        made = op.Transpose(op.Reshape(rows, op.Concat(*wanted, axis=0)), perm=[1, 0, 2, 3])
        made.type, made.shape = mask.type, ir.Shape([(dims(self._ids) or [None])[0], *found[1:]])
        label(op, "bias")
        self._check(mask, made)
        return made

    def _check(self, mask: ir.Value, made: ir.Value) -> None:
        """Refuse a bias that is not the mask's at the tokens of rows of several lengths, in a prompt and in a step."""
        marks = padded(LENGTH)["right"]
        ends = marks.sum(axis=1) - 1
        whole = Rows(self._graph, self._cache, mask)(marks, LENGTH)
        found = Rows(self._graph, self._cache, made)
        causal = np.tri(LENGTH, dtype=bool) & (marks[:, None, :, None] == 1)
        prompt = np.where(causal, found(marks, LENGTH) - whole, 0)
        last = np.take_along_axis(np.broadcast_to(whole, prompt.shape), ends[:, None, None, None], 2)
        step = np.where(marks[:, None, None, :] == 1, found(marks, 1) - last, 0)
        if max(np.abs(prompt).max(), np.abs(step).max()) > _CLOSE * np.abs(np.where(causal, whole, 0)).max():
            raise Refused("a bias is added to the scores that places alone do not tell")


class _Copy:
    """What computes a mask once more: for a text of T tokens, and B*S positions for the last S."""

    def __init__(self, op: Builder, ids: ir.Value, mask: ir.Value, wanted: ir.Value) -> None:
        self._op, self._inputs = op, (ids, mask)
        total, rows = op.Shape(mask, start=1, end=2), op.constant([-1], "rows", np.int64)
        one, axis = op.constant([1], "one", np.int64), op.constant(1, "axis", np.int64)
        counts = op.Sub(op.CumSum(op.Cast(op.Cast(mask, to=ir.DataType.BOOL), to=ir.DataType.INT64), axis), one)
        end = op.constant([np.iinfo(np.int64).max], "end", np.int64)
        new = op.Slice(counts, op.Neg(op.Shape(ids, start=1, end=2)), end, one)
        self._places = op.Reshape(op.Max(new, op.constant(0, "zero", np.int64)), rows)
        (batch, new_length), (_, length) = (dims(v) or [None, None] for v in (ids, mask))
        self._lengths = {batch: one, new_length: op.Shape(self._places), length: total}
        ones = op.Expand(op.Cast(one, to=mask.dtype), op.Concat(one, total, axis=0))
        self._copies: dict[ir.Value, ir.Value] = {mask: ones}
        producer = wanted.producer()
        for node in with_sources([producer] if producer is not None else [], self._inputs):
            self._copy(node)
        self.made = self._copies.get(wanted, wanted)

    def _copy(self, node: ir.Node) -> None:
        read = [v for v in node.inputs if v is not None]
        if node.op_type == "Shape" and not node.domain:
            self._copies[node.outputs[0]] = self._shape(node)
        elif self._takes_last(node):
            at = constant(node.inputs[3])
            assert at is not None and node.inputs[0] is not None
            source = self._copies.get(node.inputs[0], node.inputs[0])
            self._copies[node.outputs[0]] = self._op.Gather(source, self._places, axis=int(at.numpy()[0]))
        elif self._inputs[0] in read:
            raise Refused("a mask is computed from the tokens themselves")
        elif any(v in self._copies for v in read):
            inputs = [self._copies.get(v, v) if v is not None else None for v in node.inputs]
            made = self._op.several(node.op_type, len(node.outputs), *inputs, domain=node.domain)
            made[0].producer().attributes.update(node.attributes)  # type: ignore[union-attr]
            self._copies.update(zip(node.outputs, made, strict=True))

    def _takes_last(self, node: ir.Node) -> bool:
        """Whether it is a cut down to the new tokens: a Slice that starts at minus the length of the ids."""
        if node.op_type != "Slice":
            return False
        length = _reader(_reader(node.inputs[1], "Neg"), "Shape")
        return length is not None and length is self._inputs[0]

    def _shape(self, node: ir.Node) -> ir.Value:
        found = dims(node.inputs[0]) or [None]
        parts = [self._length(d) for d in found[attribute(node, "start") or 0 : attribute(node, "end")]]
        return parts[0] if len(parts) == 1 else self._op.Concat(*parts, axis=0)

    def _length(self, dim: int | str | None) -> ir.Value:
        if isinstance(dim, int):
            return self._op.constant([dim], "length", np.int64)
        if dim not in self._lengths:
            raise Refused(f"a mask is computed from a length {dim or 'without a name'}")
        return self._lengths[dim]


def _reader(v: ir.Value | None, op_type: str) -> ir.Value | None:
    """What the node of that type reads first that gives the value; None where another gives it."""
    node = v.producer() if v is not None else None
    return node.inputs[0] if node is not None and node.op_type == op_type else None
