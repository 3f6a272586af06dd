"""A cache that keys and values are appended to in place: GroupQueryAttention on one buffer of past and present.

    Attention(q, k, v, mask, past_key, past_value)  ->  GroupQueryAttention(q, k, v, past_key, past_value, ends, total)

The operator takes no mask: it is causal, may have a window, and is told where each row ends. So the mask must mean
that where the padding is on the right, which is found by evaluating it; what it adds to the scores beside that is given
as the operator's bias (see ``bias.py``). With one window in all layers and no bias, what no window reaches any more may
be dropped from the buffers: rotary positions inside are then given, not counted. Rows are compact from then on;
see ``passes/cache/record.py`` for the layout. Sources: ONNX Runtime's contrib operator GroupQueryAttention; Ainslie et
al. 2023, arXiv:2305.13245; windows: Jiang et al. 2023, arXiv:2310.06825.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.heads import apart, packed
from onnxsmith.passes.cache.record import Cache, changed, counts_columns, recorded
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.canonicalize import follow, prune, shorten, sweep
from onnxsmith.passes.engine.build import Builder, detach
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import attribute, dims
from onnxsmith.passes.lower.bias import Biases
from onnxsmith.passes.lower.heads import HEAD_MULTIPLE
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels
from onnxsmith.passes.lower.rotary import Tables, Turnings, constants
from onnxsmith.passes.lower.steady import takes_wide_masks
from onnxsmith.passes.lower.window import Sight, sight_of

NAME = "in-place-cache"
_Biases: TypeAlias = dict[ir.Value | None, ir.Value | None]
_PAST = 4  # the place of past keys among the inputs; attention without them reads another text


def in_place(model: ir.Model, kernels: Kernels) -> list[Remark]:
    """Turn the attention of a model with a cache into the operator, in place: every layer, or none and one remark."""
    cache = recorded(model)
    if cache is None or cache.layout == "in-place":
        return []
    graph, op, names = model.graph, Builder(), Names(model)
    try:
        sites = _sites(model, cache, kernels)
        biases = _biases(op, graph, cache, sites)
    except Refused as refused:
        detach(op.nodes)
        return [Remark("missed", NAME, "", reason=f"keys and values are copied: {refused}")]
    ends, total = _ends(op, graph, cache)
    tables = {t: constants(op, t) for t in dict.fromkeys(site.rotary for site in sites) if t is not None}
    windows = {site.sight.window for site in sites}
    rolls = windows != {None} and len(windows) == 1 and not any(biases.values())
    places = next((v for v in graph.inputs if v.name == cache.positions), None) if rolls else None
    made = []
    for site in sites:
        turned = (*tables[site.rotary], places) if site.rotary else (None, None, None)
        made.append(_built(op, site, [ends, total, *turned, biases[site.mask]]))
    names.adopt(graph, op)
    graph.extend(op.nodes)
    graph.opset_imports.setdefault(MICROSOFT, 1)
    for site, outputs in zip(sites, made, strict=True):
        _replace(graph, site.node, outputs)
    graph.sort()
    changed(model, layout="in-place", window=windows.pop() if len(windows) == 1 else None, rolls=rolls)
    _settle(model)
    bounded = not tables or cache.max_positions is not None  # the kernel wants angles of every column
    steady = bounded and cache.cross is None and not rolls and takes_wide_masks(graph, cache)
    changed(model, steady=steady)
    told = (" rotated inside" if tables else "") + (" with a bias on the scores" if any(biases.values()) else "")
    return [Remark("analysis", NAME, "", reason=f"{len(sites)} layers append to their buffers{told}")]


@dataclass(frozen=True)
class _Site:
    """One Attention: q, k and v [B, S, H*D] or [B, H, S, D]; where ``rotary`` is given, before it turned q and k."""

    node: ir.Node
    heads: int
    query: ir.Value
    keys: ir.Value
    mask: ir.Value | None
    sight: Sight
    rotary: Tables | None


def _sites(model: ir.Model, cache: Cache, kernels: Kernels) -> list[_Site]:
    nodes = [n for n in model.graph if n.op_type == "Attention" and not n.domain and len(n.inputs) > _PAST]
    if counts_columns(model):
        raise Refused("tokens are told apart by their column, and in place padding has none")
    if cache.head_size % HEAD_MULTIPLE:
        raise Refused(f"heads of {cache.head_size} features, and the kernel takes multiples of {HEAD_MULTIPLE}")
    if not kernels.has(MICROSOFT, "GroupQueryAttention", nodes[0].outputs[0].dtype):
        raise Refused(f"{kernels.target} has no kernel of GroupQueryAttention for this type")
    masks = {node.inputs[3] for node in nodes}
    sights = {mask: sight_of(mask, model.graph, cache) for mask in masks}
    turnings = Turnings(model.graph, cache)
    return [_site(node, turnings, cache, sights[node.inputs[3]]) for node in nodes]


def _biases(op: Builder, graph: ir.Graph, cache: Cache, sites: Sequence[_Site]) -> _Biases:
    """By mask what it adds to the scores, None where that is nothing."""
    found = Biases(op, graph, cache)
    masks = {site.mask: site.sight.biased for site in sites}
    return {mask: found.of(mask) if biased and mask is not None else None for mask, biased in masks.items()}


def _site(node: ir.Node, turnings: Turnings, cache: Cache, sight: Sight) -> _Site:
    query, keys, values, mask = node.inputs[:4]
    assert query is not None and keys is not None and values is not None, "the operator requires all three"
    if mask is None and not attribute(node, "is_causal"):
        raise Refused(f"{node.name} is not causal")
    found = dims(query) or []
    heads = found[1] if len(found) == 4 else attribute(node, "q_num_heads")
    if not isinstance(heads, int) or dims(node.inputs[5])[-1:] != [cache.head_size]:  # type: ignore[index]
        raise Refused(f"{node.name} has heads of an unknown number, or of two sizes")
    query, keys, rotary = turnings.before(query, keys) or (query, keys, None)
    return _Site(node, heads, query, keys, mask, sight, rotary)


def _ends(op: Builder, graph: ir.Graph, cache: Cache) -> tuple[ir.Value, ir.Value]:
    """The last token's column in each row, int32 [B], and the length of the longest row, an int32."""
    mask = next(v for v in graph.inputs if v.name == cache.mask)
    axis, one = op.constant([1], "axis", np.int64), op.constant(1, "one", np.int32)
    counts = op.Cast(op.Cast(mask, to=ir.DataType.BOOL), to=ir.DataType.INT32)
    ends = op.Sub(op.ReduceSum(counts, axis, keepdims=0), one)
    return ends, op.Cast(op.Squeeze(op.Shape(mask, start=1, end=2)), to=ir.DataType.INT32)


def _built(op: Builder, site: _Site, further: Sequence[ir.Value | None]) -> list[ir.Value]:
    """The operator's mixed values, in the shape of the attention's, and present keys and values."""
    node, output, keys, before = site.node, site.node.outputs[0], site.node.inputs[4], len(op.nodes)
    parts = [packed(op, v) for v in (site.query, site.keys, node.inputs[2]) if v is not None]
    told: dict[str, Any] = {
        "num_heads": site.heads,
        "kv_num_heads": (dims(keys) or [])[1],
        "scale": attribute(node, "scale"),
        "softcap": attribute(node, "softcap") or None,
        "local_window_size": site.sight.window,
        "do_rotary": 1 if site.rotary else None,
        "rotary_interleaved": 1 if site.rotary and site.rotary.interleaved else None,
    }
    inputs = [*parts, *node.inputs[4:6], *further]
    mixed, *present = op.several("GroupQueryAttention", 3, *inputs, domain=MICROSOFT, **told)
    mixed.type, mixed.shape = output.type, ir.Shape(dims(parts[0]) or [])
    for own, v in zip(node.outputs[1:], present, strict=True):
        v.type, v.shape = own.type, own.shape
    shaped = mixed if len(dims(output) or []) == 3 else apart(op, mixed, site.heads)
    stamp(op.nodes[before:], NAME, [node])
    return [shaped, *present]


def _replace(graph: ir.Graph, node: ir.Node, outputs: list[ir.Value]) -> None:
    """Let everything read these in place of the node's own; those of the graph keep their names."""
    mixed, *present = outputs
    node.outputs[0].replace_all_uses_with(mixed)
    for old, new in zip(node.outputs[1:], present, strict=True):
        graph.outputs[list(graph.outputs).index(old)] = new
        new.name, old.name = old.name, f"{old.name}.copied"
    graph.remove(node, safe=True)


def _settle(model: ir.Model) -> None:
    """Views meet and vanish; a position input that nothing reads any more goes."""
    prune(model)
    sweep(model)
    if shorten(model):
        sweep(model)
    follow(model)
    cache = recorded(model)
    unread = [v for v in model.graph.inputs if cache is not None and v.name == cache.positions and not v.uses()]
    for v in unread:
        model.graph.inputs.remove(v)
        changed(model, positions=None)
