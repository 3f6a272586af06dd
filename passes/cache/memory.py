"""What a decoder that was exported with past takes of a source: keys and values [B, H, R, D] that an encoder gives.

They come in beside the past and do not grow. Some exports take the encoder's states as well and read nothing of them,
or hand the keys and values on as outputs.

Shapes: B batch, R source tokens, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from itertools import zip_longest

import onnx_ir as ir

from onnxsmith.passes.cache.record import Cross
from onnxsmith.passes.cache.rowwise import ELEMENTWISE
from onnxsmith.passes.cache.text import Refused, is_ids
from onnxsmith.passes.engine.values import dims

_ENCODER = ["input_ids", "attention_mask"]  # what an encoder takes, and how it calls what a decoder takes: optimum's
_PAST, _PRESENT = "past_key_values", "present"


def find_cross(graph: ir.Graph, past: Collection[ir.Value]) -> Cross | None:
    """What is taken of a source beside that past; None where nothing is. The encoder's names are those of optimum.

    Refused where more than one input may be the source's mask.
    """
    kept = [v for v in graph.inputs if floats(v) and v not in past and not is_unread(v)]
    if not kept:
        return None
    lengths = {d for v in kept for d in (dims(v) or [])[-2:-1]}
    masks = [v for v in graph.inputs if _is_mask(v) and _along(graph, v, lengths)]
    if len(masks) > 1:
        told = ", ".join(f"{v.name} {dims(v)}" for v in masks)
        raise Refused(f"expected one mask of the source, found {told}; name their dimensions apart with --dims")
    names = [str(v.name) for v in kept]
    mask = str(masks[0].name) if masks else None
    return Cross(names, [name.replace(_PAST, _PRESENT) for name in names], _ENCODER[: 1 + len(masks)], mask)


def floats(v: ir.Value) -> bool:
    return v.dtype is not None and v.dtype.is_floating_point()


def is_unread(v: ir.Value) -> bool:
    return not v.uses() and not v.is_graph_output()


def gives_back(output: ir.Value, cross: Cross | None) -> bool:
    """Whether an output is what the decoder took of the source."""
    node = output.producer()
    own = node.inputs[0] if node is not None and node.op_type == "Identity" else output
    return cross is not None and own is not None and own.name in cross.past


def settle(graph: ir.Graph, cross: Cross, batch: int | str | None) -> None:
    """Give what is taken of the source one name for its batch and one for its length, in place."""
    given = {str(v.name): v for v in graph.inputs}
    first, *_ = kept = [given[name] for name in cross.past]
    length = (dims(first) or [None, None])[-2]
    for v in kept:
        own = dims(v) or []
        v.shape = ir.Shape([batch, *own[1:-2], length, own[-1]])
    if cross.mask is not None:
        given[cross.mask].shape = ir.Shape([batch, length])


def _is_mask(v: ir.Value) -> bool:
    return len(dims(v) or []) == 2 and not is_ids(v)


def _along(graph: ir.Graph, mask: ir.Value, lengths: Set[object]) -> bool:
    """Whether the mask is as long as one of those: by name, or since both meet element by element."""
    own = (dims(mask) or [])[1]
    if own in lengths:
        return True
    for node in (n for n in graph if n.op_type in ELEMENTWISE and not n.domain):
        for axis in zip_longest(*(reversed(dims(v) or []) for v in node.inputs if v is not None)):
            if own in axis and not lengths.isdisjoint(axis):
                return True
    return False
