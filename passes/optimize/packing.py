"""Packing: values in the places that :mod:`onnxsmith.passes.optimize.layout` has for them, each moved once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lift.scores import lowest
from onnxsmith.passes.optimize import layout
from onnxsmith.passes.optimize.first_fit import typed
from onnxsmith.passes.optimize.layout import LONGEST, ROWS, TOKENS, Padding


class Packing:
    """The rewrite of one model: ``nodes`` go token by token, ``sites`` are the Attentions between them.

    ``share`` lets rows of attention hold several of the batch's.
    """

    def __init__(
        self, model: ir.Model, padding: Padding, nodes: Iterable[ir.Node], sites: Iterable[ir.Node], share: bool
    ) -> None:
        self.graph, self.names, self.lead = model.graph, Names(model), padding.lead
        self.nodes, self.sites = dict.fromkeys(nodes), dict.fromkeys(sites)
        self.sizes = {n.outputs[0]: dims(n.outputs[0]) or [] for n in [*self.nodes, *self.sites]}
        self.moved: dict[tuple[str, ir.Value], ir.Value] = {}
        self.start = self.graph[0]
        op = Builder()
        self.tokens = layout.packed(op, padding)
        self.rows = layout.rows(op, self.graph, self.names, self.tokens, share)
        self._insert_before(self.start, op)

    def run(self, is_token: Callable[[ir.Value | None], bool]) -> None:
        """``is_token`` tells the values [B, S, ..] that are packed where a node reads them."""
        reads = [(n, i, v) for n in self.nodes for i, v in _given(n) if v in self.sizes or is_token(v)]
        reads_in_rows = [(site, i, v) for site in self.sites for i, v in _given(site)]
        outside = {v: [u for u in v.uses() if u[0] not in self.nodes and u[0] not in self.sites] for v in self.sizes}
        self._reshape()
        for node, i, v in reads:
            node.replace_input_with(i, self._packed(v))
        for site, i, v in reads_in_rows:
            site.replace_input_with(i, self._in_rows(v) if i < 3 else self._mask(v))
        for v, users in outside.items():
            if users or v.is_graph_output():
                self._pad(v, users)

    def _reshape(self) -> None:
        for v, (_, _, *rest) in self.sizes.items():
            v.shape = ir.Shape([ROWS, LONGEST, *rest] if v.producer() in self.sites else [1, TOKENS, *rest])

    def _packed(self, v: ir.Value) -> ir.Value:
        """[1, N, ..] of a value that is packed already, an attention's, or one that is padded."""
        if v.producer() in self.nodes:
            return v
        places = self.rows.slots if v in self.sizes else self.tokens.tokens

        def move(op: Builder) -> ir.Value:
            flat = op.Reshape(v, op.constant([1, -1, *(dims(v) or [])[2:]], "flat_shape"))
            return typed(op.Gather(flat, places, axis=1), v.dtype, [1, TOKENS, *(dims(v) or [])[2:]])

        return self._once("packed", v, v, move)

    def _in_rows(self, v: ir.Value) -> ir.Value:
        source = self._packed(v)

        def move(op: Builder) -> ir.Value:
            return self._spread(op, source, self.rows.order, [ROWS, LONGEST])

        return self._once("rows", v, source, move)

    def _spread(self, op: Builder, source: ir.Value, places: ir.Value, lead: list[int | str | None]) -> ir.Value:
        """Packed [1, N, ..] at ``places`` of two dimensions, which are called ``lead``."""
        found = op.Squeeze(op.Gather(source, places, axis=1), op.constant([0], "axis"))
        return typed(found, source.dtype, [*lead, *(dims(source) or [])[2:]])

    def _mask(self, v: ir.Value) -> ir.Value:
        """[R, H|1, L, L] from what broadcasts to [B, H, S, S]: what it says within a row, blocked between two."""

        def move(op: Builder) -> ir.Value:
            assert v.dtype is not None, "attention was recognised by its types"
            heads = [1, 1, 1, *(dims(v) or [])][-3]
            shape = op.Shape(self.tokens.kept)
            batch, length = (op.Gather(shape, op.constant([i], "axis")) for i in (0, 1))
            whole = op.Expand(v, op.Concat(batch, op.constant([1], "single"), length, length, axis=0))
            flat = op.Flatten(op.Transpose(whole, perm=[0, 2, 3, 1]), axis=3)
            said = op.Transpose(op.Gather(flat, self.rows.pairs), perm=[0, 3, 1, 2])
            typed(said, v.dtype, [ROWS, heads, LONGEST, LONGEST])
            if v.dtype == ir.DataType.BOOL:
                return typed(op.And(self.rows.together, said), v.dtype, dims(said) or [])
            blocked = op.constant(lowest(v.dtype), "blocked", v.dtype.numpy())
            return typed(op.Where(self.rows.together, said, blocked), v.dtype, dims(said) or [])

        return self._once("mask", v, v, move)

    def _pad(self, v: ir.Value, users: Sequence[tuple[ir.Node, int]]) -> None:
        """What reads a value elsewhere sees zeros at padded positions."""
        source, name, is_output = self._packed(v), v.name, v.is_graph_output()
        op, rank = Builder(), len(self.sizes[v])
        found = self._spread(op, source, self.tokens.places, self.lead)
        kept = op.Unsqueeze(self.tokens.kept, op.constant(range(2, rank), "axes", np.int64))
        zero = op.constant(0, "zero", v.dtype.numpy())  # type: ignore[union-attr]
        shown = typed(op.Where(kept, found, zero), v.dtype, self.sizes[v])
        self._insert_after(source, op)
        for node, i in users:
            node.replace_input_with(i, shown)
        if is_output:
            v.name = f"{name}_packed"
            self.graph.outputs[:] = [shown if out is v else out for out in self.graph.outputs]
            shown.name = name

    def _once(self, form: str, v: ir.Value, behind: ir.Value, move: Callable[[Builder], ir.Value]) -> ir.Value:
        if (form, v) not in self.moved:
            op = Builder()
            self.moved[form, v] = move(op)
            self._insert_after(behind, op)
        return self.moved[form, v]

    def _insert_before(self, node: ir.Node, op: Builder) -> None:
        self.names.adopt(self.graph, op)
        self.graph.insert_before(node, op.nodes)

    def _insert_after(self, v: ir.Value, op: Builder) -> None:
        producer = v.producer()
        if producer is None:  # a graph input
            self._insert_before(self.start, op)
            return
        self.names.adopt(self.graph, op)
        self.graph.insert_after(producer, op.nodes)


def _given(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """The inputs that are there, and where."""
    return [(i, v) for i, v in enumerate(node.inputs) if v is not None]
