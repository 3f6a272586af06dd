"""Unpad: products, norms and activations run over the tokens that count, packed [1, N, D] without the padding.

    hidden [B, S, D] ─ pack ─ token by token [1, N, D] ─ rows ─ Attention [R, L, D] ─ pack ─ ... ─ pad ─ output

Attention runs on rows as long as the longest that is left, which short ones share: its scores are R * L^2 in all,
while those of one packed row would be N^2. A mask keeps those apart that came in different rows.

The contract: outputs are the same at allowed positions and zero at padded ones. The first position of each row is
computed even where it is padding, since pooling by the first token reads it. Keys and values that an encoder gives to a
decoder, which reads them by the mask, have their positions further back: [B, H, S, D].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.passes.cache.record import source_of
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import attribute, constant, dims, rank, scalar
from onnxsmith.passes.lift.masks import MaskMeaning, meaning_of
from onnxsmith.passes.optimize.layout import Padding
from onnxsmith.passes.optimize.packing import Packing

UNPADDED = "onnxsmith.unpadded"
CONTRACT = "zero, save the first of each row, which is computed"
_UNARY = frozenset({"Cast", "Erf", "Gelu", "Identity", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"})
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Pow", "Sub", "Where"}) | _UNARY
_NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
_VIEWS = frozenset({"Cast", "Expand", "Identity", "Unsqueeze"})


class _Refused(Exception):
    """Why padding cannot be removed."""


def unpad(model: ir.Model, share: bool = True) -> list[Remark]:
    """Remove padding from the main graph, in place; one remark, which says why where it cannot be done.

    Attention must carry its mask's meaning, see :func:`onnxsmith.passes.lift.masks.annotate`. ``share`` lets rows that
    fit together share one in attention; finding them is a loop over the rows. An unpadded model is left as it is.
    """
    if UNPADDED in model.metadata_props:
        return []
    sites = [n for n in model.graph.all_nodes() if n.op_type == "Attention" and not n.domain]
    try:
        meaning = _meaning(sites)
        cross = source_of(model)
        region = _region(model.graph, sites, meaning, cross is not None and cross.mask is not None)
    except _Refused as refused:
        return [Remark("missed", "unpad", "", reason=str(refused))]
    Packing(model, region.padding, region.nodes, sites, share).run(region.is_token)
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
    """What is packed: ``nodes`` go token by token, ``sites`` are the Attentions between them."""

    sites: list[ir.Node]
    padding: Padding
    masked: bool  # who reads the outputs knows of the mask
    nodes: dict[ir.Node, None] = field(default_factory=dict)

    def is_token(self, v: ir.Value | None) -> bool:
        """Whether a value is float [B, S, ..] with known sizes behind, other than a constant."""
        size = dims(v)
        if v is None or size is None or v.dtype is None or not v.dtype.is_floating_point() or constant(v) is not None:
            return False
        return len(size) > 2 and size[:2] == self.padding.lead and all(isinstance(d, int) for d in size[2:])

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


def _meaning(sites: list[ir.Node]) -> MaskMeaning:
    if not sites:
        raise _Refused("no Attention was recognised, so it is not known which positions are padding")
    meanings = {meaning_of(n) for n in sites}
    found = next(iter(meanings))
    if len(meanings) > 1 or found is None or found.padding is None:
        told = ", ".join(sorted("not recognised" if m is None else str(m) for m in meanings))
        raise _Refused(f"expected one mask of padding at every Attention, found {told}")
    return found


def _region(graph: ir.Graph, sites: list[ir.Node], meaning: MaskMeaning, masked: bool) -> _Region:
    mask = next(v for v in graph.inputs if v.name == meaning.padding)
    region = _Region(sites, Padding(mask, meaning.keep), masked)
    if None in region.padding.lead:
        raise _Refused(f"the dimensions of {mask.name} have no names; name them with --dims")
    for site in sites:
        given = [v for i, v in enumerate(site.inputs) if v is not None and i != 3]
        fits = len(given) == 3 and all(region.is_token(v) and rank(v) == 3 for v in given)
        if not fits or len(site.outputs) > 1 or site.graph is not graph:
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
        shown = region.masked and _is_only_shown(reader)
        if not (inside or shown or _takes_first(reader, i) or reader.op_type == "Shape" or _is_masked(region, v)):
            raise _Refused(f"{reader.op_type} {reader.name} reads the padded positions of {v.name}")


def _is_only_shown(reader: ir.Node) -> bool:
    """Whether what the node gives is the same elements in another shape, for outputs alone."""
    if reader.op_type not in ("Reshape", "Transpose"):
        return False
    return all(_is_only_shown(user) for user, _ in reader.outputs[0].uses())


def _takes_first(reader: ir.Node, i: int) -> bool:
    if reader.op_type != "Gather" or i != 0 or attribute(reader, "axis") != 1:
        return False
    return scalar(reader.inputs[1]) == 0


def _is_masked(region: _Region, v: ir.Value) -> bool:
    """Whether the value is a product with the padding mask, so zero at padded positions anyway."""
    node = v.producer()
    mask, lead = region.padding.mask, region.padding.lead
    if node is None or node.op_type != "Mul" or not region.padding.keep:
        return False
    return any(_views(i) is mask and (dims(i) or [])[:2] == lead for i in node.inputs)


def _views(v: ir.Value | None) -> ir.Value | None:
    while v is not None and (node := v.producer()) is not None and node.op_type in _VIEWS:
        v = node.inputs[0]
    return v
