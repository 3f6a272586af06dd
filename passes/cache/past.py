"""A decoder that was exported with past and present: what it keeps, and the plain decoder that it is without.

    present = Concat(past, new)    keys or values [B, H, P, D] of the P earlier tokens, and [B, H, S, D] of the new ones

With nothing in the past, present is the new ones alone: so a decoder without a cache is the same graph at P = 0, and
every pass for those serves this one too. What an encoder-decoder's decoder takes of its source stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.memory import find_cross, gives_back, is_unread, settle
from onnxsmith.passes.cache.record import CACHE, Cache, Cross, record_source
from onnxsmith.passes.cache.text import Refused, find_text
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.values import attribute, dims

_POSITIONS = "position_ids"  # nothing else tells them from token ids, which pick rows of a table as well
_MASK, _MASK_OF_TWO = "attention_mask", "decoder_attention_mask"  # what a decoder that takes none is given
_LENGTH = 2  # the axis of keys and values that grows


def keeps(model: ir.Model) -> bool:
    """Whether an input may be the keys or values [B, H, P, D] of earlier tokens."""
    return bool(_pasts(model.graph))


def find_past(model: ir.Model) -> Cache | None:
    """The cache of a canonical decoder, in the layout *concat*; None of a model that :func:`keeps` nothing.

    Refused where the cache is kept in another way, or where there are other inputs and outputs than a decoder's.
    """
    graph = model.graph
    if not keeps(model):
        return None
    pairs = _pairs(graph)
    cross = find_cross(graph, pairs)
    positions = next((v for v in graph.inputs if v.name == _POSITIONS), None)
    text = find_text(graph, {str(v.name) for v in _further(graph, pairs, cross)})
    others = [v for v in graph.outputs if v not in pairs.values() and not gives_back(v, cross)]
    if len(others) != 1:
        raise Refused(f"expected one output beside the presents, found {', '.join(str(v.name) for v in others)}")
    first, *_ = pairs
    _, heads, _, size = dims(first) or []
    assert isinstance(heads, int) and isinstance(size, int) and first.dtype is not None, "so it was found"
    return Cache(
        layers=len(pairs) // 2,
        heads=heads,
        head_size=size,
        dtype=str(first.dtype.numpy()),
        ids=str(text.ids.name),
        mask=(_MASK if cross is None else _MASK_OF_TWO) if text.mask is None else str(text.mask.name),
        positions=None if positions is None else _POSITIONS,
        past=[str(v.name) for v in pairs],
        present=[str(v.name) for v in pairs.values()],
        logits=str(others[0].name),
        last_only=False,
        next_token=None,
        cross=cross,
    )


def without_past(model: ir.Model, cache: Cache) -> None:
    """Leave of a canonical decoder with that cache the plain one: ids and mask [B, S] to logits; in place.

    It takes of a source what it took, which is recorded in it. It is to be made canonical again, since no shapes are
    known any more. Positions are the cumulative sum of the mask minus one, clipped at 0.
    """
    graph, op, names = model.graph, Builder(), Names(model)
    given = {str(v.name): v for v in graph.inputs}
    ids, pairs = given[cache.ids], _pairs(graph)
    for past, present in pairs.items():
        _drop(graph, op, ids, past, present)
    if cache.positions is not None:
        given[cache.positions].replace_all_uses_with(_counted(op, ids, given.get(cache.mask)))
    names.adopt(graph, op)
    graph.extend(op.nodes)
    graph.sort()
    for v in [v for v in graph.outputs if v.name != cache.logits]:
        graph.outputs.remove(v)
    for v in (v for node in graph.all_nodes() for v in node.outputs):
        v.shape = None
    for v in [v for v in graph.inputs if v in pairs or v.name == cache.positions or is_unread(v)]:
        graph.inputs.remove(v)
    if cache.mask in given:
        given[cache.mask].shape = ids.shape
    model.metadata_props.pop(CACHE, None)
    if cache.cross is not None:
        settle(graph, cache.cross, (dims(ids) or [None])[0])
        record_source(model, cache.cross)


def _pasts(graph: ir.Graph) -> list[ir.Value]:
    """Inputs [B, H, P, D] of floats, of which H and D are known."""
    found = []
    for v in graph.inputs:
        fixed = [isinstance(d, int) for d in dims(v) or []]
        if fixed[1:] == [True, False, True] and v.dtype is not None and v.dtype.is_floating_point():
            found.append(v)
    return found


def _pairs(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Of every past, in order, its present. Refused where that is anything but the past and then what is new.

    What nothing is put beside is no past, unless there is no other: it is of a source.
    """
    found, pasts = {}, _pasts(graph)
    for v in [v for v in pasts if any(_grows(node) for node, _ in v.uses())] or pasts:
        joined = [node for node, i in v.uses() if i == 0 and _grows(node) and node.outputs[0].is_graph_output()]
        if not joined:
            raise Refused(f"no output is {v.name} and behind it what is new, so it is kept in another way")
        if other := next((n for n, _ in v.uses() if n is not joined[0] and n.op_type != "Shape"), None):
            raise Refused(f"{other.op_type} {other.name} reads {v.name}, whose keys or values are only to be kept")
        found[v] = joined[0].outputs[0]
    return found


def _further(graph: ir.Graph, pairs: Mapping[ir.Value, ir.Value], cross: Cross | None) -> list[ir.Value]:
    """Inputs that are no part of the text, or say nothing of it but where its tokens stand."""
    source = [] if cross is None else [*cross.past, cross.mask]
    named = [v for v in graph.inputs if v.name == _POSITIONS or v.name in source]
    return [*pairs, *named, *(v for v in graph.inputs if is_unread(v))]


def _grows(node: ir.Node) -> bool:
    return node.op_type == "Concat" and len(node.inputs) == 2 and attribute(node, "axis") % 4 == _LENGTH


def _drop(graph: ir.Graph, op: Builder, ids: ir.Value, past: ir.Value, present: ir.Value) -> None:
    """Let everything read the new keys or values in place of all, and find the past empty."""
    joined = present.producer()
    assert joined is not None and joined.inputs[1] is not None, "as it was found"
    graph.outputs.remove(present)
    present.replace_all_uses_with(joined.inputs[1])
    graph.remove(joined, safe=True)
    _, heads, _, size = dims(past) or []
    for node in [node for node, _ in past.uses()]:
        sizes = [op.Shape(ids, start=0, end=1), *(op.constant([n], "size", np.int64) for n in (heads, 0, size))]
        told = sizes[attribute(node, "start") or 0 : attribute(node, "end")]
        node.outputs[0].replace_all_uses_with(told[0] if len(told) == 1 else op.Concat(*told, axis=0))


def _counted(op: Builder, ids: ir.Value, mask: ir.Value | None) -> ir.Value:
    """Positions [B, S] of a mask; without one every token counts."""
    one, zero = op.constant(1, "one", np.int64), op.constant(0, "zero", np.int64)
    if mask is None:
        return op.Sub(op.CumSum(op.Expand(one, op.Shape(ids)), one), one)
    counts = op.Cast(op.Cast(mask, to=ir.DataType.BOOL), to=ir.DataType.INT64)
    return op.Max(op.Sub(op.CumSum(counts, one), one), zero)
