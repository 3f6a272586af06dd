"""Logits of the last token alone, and the token that they say: a decoder's prompt needs no others.

The head's product is the largest of a small model. Everything between the last place where tokens meet and the logits
runs on one token a row.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.text import Refused, Text
from onnxsmith.passes.canonicalize import follow
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.values import attribute, dims


def follow_outputs(model: ir.Model) -> None:
    """TorchScript names the dimensions of outputs anew: let them be called what the inputs call them."""
    known = {d for v in model.graph.inputs for d in dims(v) or []}
    for v in model.graph.outputs:
        if found := dims(v):
            v.shape = ir.Shape([d if isinstance(d, int) or d in known else None for d in found])
    follow(model)


def find_logits(graph: ir.Graph, text: Text) -> ir.Value:
    """The one output of the model, float [B, S, V]."""
    outputs = list(graph.outputs)
    found = dims(outputs[0]) or []
    if len(outputs) != 1 or len(found) != 3 or text.axis(outputs[0]) != 1 or not isinstance(found[2], int):
        told = ", ".join(f"{v.name} {dims(v)}" for v in outputs)
        raise Refused(f"expected one output of logits [B, S, V], found {told}")
    if outputs[0].dtype is None or not outputs[0].dtype.is_floating_point():
        raise Refused(f"output {outputs[0].name} holds no floats, so no logits")
    return outputs[0]


def last_token(op: Builder, x: ir.Value, ids: ir.Value, mask: ir.Value) -> ir.Value:
    """x [B, S, N] at the last token of each row that counts: [B, 1, N].

    ids [B, S]; mask [B, T], of which the last S columns are those of the ids. A row of padding gives its first column.
    """
    count = op.Shape(ids, start=1, end=2)
    at, end = op.constant([1], "axis", np.int64), op.constant([np.iinfo(np.int64).max], "end", np.int64)
    zero, one = op.constant(0, "zero", np.int64), op.constant(1, "one", np.int64)
    recent = op.Slice(mask, op.Neg(count), end, at)
    counts = op.Cast(op.Cast(recent, to=ir.DataType.BOOL), to=ir.DataType.INT64)
    places = op.Mul(counts, op.Range(zero, op.Squeeze(count), one))
    last = op.ReduceMax(places, at, keepdims=1)
    found = op.GatherND(x, op.Unsqueeze(last, op.constant([2], "axis", np.int64)), batch_dims=1)
    found.type, found.shape = x.type, ir.Shape([dims(ids)[0], 1, dims(x)[2]])  # type: ignore[index]
    return found


def at_every_token(model: ir.Model) -> ir.Model:
    """Undo :func:`last_token`, in place: what it narrowed runs on all tokens again."""
    for node in [n for n in model.graph if n.op_type == "GatherND" and attribute(n, "batch_dims") == 1]:
        x, behind = node.inputs[0], [node.outputs[0]]
        if x is None or len(dims(x) or []) != 3 or (dims(behind[0]) or [])[1:2] != [1]:
            continue  # a choice of the model's own
        for v in behind:
            v.shape = ir.Shape([*(dims(x) or [])[:2], *(dims(v) or [])[2:]])
            behind += [made for user, _ in v.uses() for made in user.outputs if made not in behind]
        node.outputs[0].replace_all_uses_with(x)
    return model


def narrowed(op: Builder, logits: ir.Value, hidden: set[ir.Value], ids: ir.Value, mask: ir.Value) -> ir.Value:
    """Let everything behind the last place where tokens meet run on one token a row; returns the logits [B, 1, V].

    They are another value where nothing stands behind: the last token is then taken of the logits themselves. The new
    nodes are still to be put into the graph.
    """
    wide = narrowest(logits, hidden)
    readers = list(wide.uses())
    v = narrow = last_token(op, wide, ids, mask)
    if wide is logits:
        return narrow
    for node, i in readers:
        node.replace_input_with(i, narrow)
    while v is not logits:
        v = next(iter(v.uses()))[0].outputs[0]
        v.shape = ir.Shape([(dims(v) or [None])[0], 1, *(dims(v) or [])[2:]])
    return v


def narrowest(logits: ir.Value, hidden: set[ir.Value]) -> ir.Value:
    """What to take the last token of: the first value behind which every node reads one thing that goes by tokens."""
    v = logits
    while (node := v.producer()) is not None and node.op_type in _BEHIND and len(node.outputs) == 1:
        read = [i for i in node.inputs if i in hidden]
        if len(read) != 1 or read[0] is None or len(read[0].uses()) != 1 or len(dims(read[0]) or []) != 3:
            break
        if any(len(dims(i) or ()) > 2 for i in node.inputs if i is not None and i is not read[0]):
            break
        v = read[0]
    return v


_BEHIND = frozenset({"Add", "Cast", "Div", "Gelu", "LayerNormalization", "MatMul", "Mul", "RMSNormalization", "Tanh"})
