"""Unpad: products, norms and activations run over the tokens that count, packed [1, N, D] without the padding.

    hidden [B, S, D] ─ pack ─ token by token [1, N, D] ─ pad ─ Attention [B, S, D] ─ pack ─ ... ─ pad ─ output

Attention runs on padded rows: its S * T scores a row are B * S^2 in all, and those of one packed row under a block mask
N^2, which is more as soon as N > S * sqrt(B). Padded keys hold a copy of another token, which the mask blocks.

The contract: outputs are the same at allowed positions and zero at padded ones. The first position of each row is
computed even where it is padding, since pooling by the first token reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import attribute, constant, dims, scalar
from onnxsmith.passes.lift.masks import MaskMeaning, meaning_of

UNPADDED = "onnxsmith.unpadded"
CONTRACT = "zero, save the first of each row, which is computed"
_TOKENS = "packed_tokens"
_UNARY = frozenset({"Cast", "Erf", "Gelu", "Identity", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"})
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Pow", "Sub", "Where"}) | _UNARY
_NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
_VIEWS = frozenset({"Cast", "Expand", "Identity", "Unsqueeze"})


class _Refused(Exception):
    """Why padding cannot be removed."""


def unpad(model: ir.Model) -> list[Remark]:
    """Remove padding from the main graph, in place; one remark, which says why where it cannot be done.

    Attention must carry its mask's meaning, see :func:`onnxsmith.passes.lift.masks.annotate`. An unpadded model is
    left as it is.
    """
    if UNPADDED in model.metadata_props:
        return []
    sites = [n for n in model.graph.all_nodes() if n.op_type == "Attention" and not n.domain]
    try:
        meaning = _padding(sites)
        region = _region(model.graph, sites, meaning)
    except _Refused as refused:
        return [Remark("missed", "unpad", "", reason=str(refused))]
    _Packing(model, region, meaning).run()
    model.metadata_props[UNPADDED] = json.dumps({"mask": meaning.padding, "keep": meaning.keep})
    reason = f"{len(region.nodes)} nodes run on the tokens that {meaning.padding} allows; outputs are zero elsewhere"
    return [Remark("analysis", "unpad", "", reason=reason)]


def allowed_positions(model: ir.Model, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_] | None:
    """The positions [B, S] at which an unpadded model's outputs count; None for a model that keeps its padding."""
    recorded = model.metadata_props.get(UNPADDED)
    if recorded is None:
        return None
    found = json.loads(recorded)
    return np.asarray(feeds[found["mask"]].astype(bool) == found["keep"])


@dataclass
class _Region:
    """What is packed: ``nodes`` go token by token, ``sites`` are the Attentions between them, ``lead`` is [B, S].

    ``keep`` tells whether 1 in ``mask`` [B, S] means allowed.
    """

    sites: list[ir.Node]
    lead: list[int | str | None]
    mask: ir.Value
    keep: bool
    nodes: dict[ir.Node, None] = field(default_factory=dict)

    def is_token(self, v: ir.Value | None) -> bool:
        """Whether a value is float [B, S, ..] with known sizes behind, other than a constant."""
        size = dims(v)
        if v is None or size is None or v.dtype is None or not v.dtype.is_floating_point() or constant(v) is not None:
            return False
        return len(size) > 2 and size[:2] == self.lead and all(isinstance(d, int) for d in size[2:])

    def fits(self, node: ir.Node) -> bool:
        """Whether the node treats every token alike, and apart from the others."""
        first, *others = node.inputs
        if node.domain or len(node.outputs) != 1 or not self.is_token(node.outputs[0]):
            return False
        wide = len(dims(node.outputs[0]) or [])
        if node.op_type == "MatMul":
            return self.is_token(first) and len(dims(others[0]) or []) == 2
        if node.op_type in _NORMS:
            return self.is_token(first) and attribute(node, "axis") in (-1, wide - 1) and all(map(_is_vector, others))
        if node.op_type not in _ELEMENTWISE:
            return False
        return all(self.is_token(v) and len(dims(v) or []) == wide or _is_side(v, wide) for v in node.inputs)


def _is_vector(v: ir.Value | None) -> bool:
    return v is None or len(dims(v) or [0, 0]) == 1


def _is_side(v: ir.Value | None, rank: int) -> bool:
    """Whether a value broadcasts over [B, S] in a result of this rank: it is the same for every token."""
    size = dims(v)
    return size is not None and len(size) <= rank and all(d == 1 for d in ([1] * (rank - len(size)) + size)[:2])


def _padding(sites: list[ir.Node]) -> MaskMeaning:
    if not sites:
        raise _Refused("no Attention was recognised, so it is not known which positions are padding")
    meanings = {meaning_of(n) for n in sites}
    found = next(iter(meanings))
    if len(meanings) > 1 or found is None or found.padding is None:
        told = ", ".join(sorted("not recognised" if m is None else str(m) for m in meanings))
        raise _Refused(f"expected one mask of padding at every Attention, found {told}")
    return found


def _region(graph: ir.Graph, sites: list[ir.Node], meaning: MaskMeaning) -> _Region:
    mask = next(v for v in graph.inputs if v.name == meaning.padding)
    region = _Region(sites, dims(mask) or [], mask, meaning.keep)
    if None in region.lead:
        raise _Refused(f"the dimensions of {mask.name} have no names; name them with --dims")
    for site in sites:
        given = [v for i, v in enumerate(site.inputs) if v is not None and i != 3]
        if len(given) != 3 or len(site.outputs) > 1 or site.graph is not graph or not all(map(region.is_token, given)):
            raise _Refused(f"{site.name} is no self-attention of [B, S, D] over the positions of {mask.name}")
    fitting = {n for n in graph if region.fits(n)}
    after = {v for site in sites for v in site.outputs}
    for node in graph:
        if node in fitting and after.intersection(v for v in node.inputs if v is not None):
            after.update(node.outputs)
    before = {v for site in sites for v in site.inputs[:3]}
    for node in reversed(graph):
        if node in fitting and before.intersection(node.outputs):
            before.update(node.inputs)
    chosen = [n for n in graph if n in fitting and (after | before).intersection(n.outputs)]
    region.nodes = dict.fromkeys(chosen)
    for node in [*chosen, *sites]:
        _check_readers(region, node.outputs[0])
    if shown := next((v for site in sites for v in site.outputs if v.is_graph_output()), None):
        raise _Refused(f"output {shown.name} is the Attention's own")
    return region


def _check_readers(region: _Region, v: ir.Value) -> None:
    """Padded positions become zero: nothing may read them that saw something else."""
    for reader, i in v.uses():
        inside = reader in region.nodes or (reader in region.sites and i < 3)
        if not (inside or _takes_first(reader, i) or reader.op_type == "Shape" or _is_masked(region, v)):
            raise _Refused(f"{reader.op_type} {reader.name} reads the padded positions of {v.name}")


def _takes_first(reader: ir.Node, i: int) -> bool:
    if reader.op_type != "Gather" or i != 0 or attribute(reader, "axis") != 1:
        return False
    return scalar(reader.inputs[1]) == 0


def _is_masked(region: _Region, v: ir.Value) -> bool:
    """Whether the value is a product with the padding mask, so zero at padded positions anyway."""
    node = v.producer()
    if node is None or node.op_type != "Mul" or not region.keep:
        return False
    return any(_views(i) is region.mask and (dims(i) or [])[:2] == region.lead for i in node.inputs)


def _views(v: ir.Value | None) -> ir.Value | None:
    while v is not None and (node := v.producer()) is not None and node.op_type in _VIEWS:
        v = node.inputs[0]
    return v


class _Packing:
    """The rewrite: packed and padded forms of values, each made once."""

    def __init__(self, model: ir.Model, region: _Region, meaning: MaskMeaning) -> None:
        self.graph, self.region, self.names = model.graph, region, Names(model)
        self.packed: dict[ir.Value, ir.Value] = {}
        self.start = self.graph[0]
        self._index(meaning)

    def _index(self, meaning: MaskMeaning) -> None:
        """``tokens`` [N] are the flat positions that are kept, ``places`` [B, S] where each is among the packed."""
        op, mask, lead = Builder(), self.region.mask, self.region.lead
        marked = op.Cast(mask, to=ir.DataType.BOOL)
        allowed = marked if meaning.keep else op.Not(marked)
        one, zero, flat = op.constant(1, "one", np.int64), op.constant(0, "zero", np.int64), [-1]
        length = op.Squeeze(op.Shape(mask, start=1, end=2))
        first = op.Equal(op.Range(zero, length, one), zero)
        kept = op.Or(allowed, first)
        flags = op.Reshape(kept, op.constant(flat, "flat", np.int64))
        self.tokens = op.Reshape(op.NonZero(flags), op.constant(flat, "flat", np.int64))
        places = op.Sub(op.CumSum(op.Cast(flags, to=ir.DataType.INT64), zero), one)
        self.places = op.Reshape(places, op.Shape(mask))
        self.kept = op.Unsqueeze(kept, op.constant([2], "axis", np.int64))
        _typed(self.tokens, ir.DataType.INT64, [_TOKENS])
        _typed(self.places, ir.DataType.INT64, lead)
        _typed(self.kept, ir.DataType.BOOL, [*lead, 1])
        self._insert_before(self.start, op)

    def run(self) -> None:
        """First what is packed by itself, then the two ways between: order in the graph holds all along."""
        results = [n.outputs[0] for n in self.region.nodes]
        outside = {v: self._outside(v) for v in results}
        for node in self.region.nodes:
            for i, v in enumerate(node.inputs):
                if v is not None and v not in outside and self.region.is_token(v):
                    node.replace_input_with(i, self._pack(v))
        shapes = {v: dims(v) or [] for v in results}
        for v in results:
            v.shape = ir.Shape([1, _TOKENS, *shapes[v][2:]])
        for v, (readers, is_output) in outside.items():
            if readers or is_output:
                self._unpack(v, shapes[v], readers, is_output)

    def _outside(self, v: ir.Value) -> tuple[list[tuple[ir.Node, int]], bool]:
        """The readers of a packed value that need it padded, and whether it is an output of the graph."""
        return [(n, i) for n, i in v.uses() if n not in self.region.nodes], v.is_graph_output()

    def _pack(self, v: ir.Value) -> ir.Value:
        if v not in self.packed:
            op, rest = Builder(), (dims(v) or [])[2:]
            flat = op.Reshape(v, op.constant([1, -1, *rest], "packed_shape", np.int64))
            packed = op.Gather(flat, self.tokens, axis=1)
            _typed(packed, v.dtype, [1, _TOKENS, *rest])
            self._insert_after(v, op)
            self.packed[v] = packed
        return self.packed[v]

    def _unpack(self, v: ir.Value, size: list[Any], readers: list[tuple[ir.Node, int]], is_output: bool) -> None:
        """Attention reads padded rows that hold anything finite, all others see zeros there."""
        op = Builder()
        rows = op.Squeeze(op.Gather(v, self.places, axis=1), op.constant([0], "axis", np.int64))
        _typed(rows, v.dtype, size)
        inner = [(n, i) for n, i in readers if n in self.region.sites]
        outer = [(n, i) for n, i in readers if n not in self.region.sites]
        shown = rows
        if outer or is_output:
            kept = self._kept(op, len(size))
            shown = op.Where(kept, rows, op.constant(0, "zero", v.dtype.numpy()))  # type: ignore[union-attr]
            _typed(shown, v.dtype, size)
        self._insert_after(v, op)
        for users, made in ((inner, rows), (outer, shown)):
            for node, i in users:
                node.replace_input_with(i, made)
        if is_output:
            name, v.name = v.name, f"{v.name}_packed"
            self.graph.outputs[:] = [shown if out is v else out for out in self.graph.outputs]
            shown.name = name

    def _kept(self, op: Builder, rank: int) -> ir.Value:
        return self.kept if rank == 3 else op.Unsqueeze(self.kept, op.constant(range(3, rank), "axes", np.int64))

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


def _typed(v: ir.Value, dtype: ir.DataType | None, size: list[Any]) -> None:
    v.type = ir.TensorType(dtype) if dtype is not None else None
    v.shape = ir.Shape(size)
