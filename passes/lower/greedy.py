"""The best next token without the head's whole product, where nothing but that token is asked for.

    hidden ── MatMul (+ bias) ── logits ── ArgMax ── next_token

becomes, with a new input bool ``greedy`` that is false unless it is given:

    token, sure = If greedy: screened (see screen.py)   else: nothing, unsure
    logits, next_token = If sure: none, token           else: the product as it was

What else is chosen of the logits (see candidates.py) comes with them.

The head of a small model is a fifth of the weights that a step reads, and screening reads a quarter of it. Only where
the head's weights are the embedding table, which is in memory as it stands: of others the rows would be a copy.

Shapes: B batch, D features, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.record import changed, recorded
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import constant, dims, readable
from onnxsmith.passes.lower.candidates import nothing
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels
from onnxsmith.passes.lower.optional import branch, optional_input
from onnxsmith.passes.lower.screen import screened

Array = np.ndarray[Any, Any]
NAME = "screened-head"
_RANK = 3  # of logits
_LEAST = 1 << 22  # elements of a table; the product with a smaller one takes less than a millisecond


@dataclass(frozen=True)
class _Head:
    """``nodes`` make ``logits`` [B, 1, V] of ``hidden`` [B, 1, D] and ``table`` [V, D], and the ``token`` [B, 1].

    ``ranked`` is what else they make.
    """

    nodes: list[ir.Node]
    hidden: ir.Value
    table: ir.Value
    bias: ir.Value | None
    logits: ir.Value
    token: ir.Value
    ranked: list[ir.Value]


def screen_head(model: ir.Model, kernels: Kernels) -> list[Remark]:
    """Let a decoder with a cache screen its tied float32 head, in place, where the target has the kernel."""
    cache = recorded(model)
    if cache is None or cache.next_token is None or not cache.last_only:
        return []
    outputs = {v.name: v for v in model.graph.outputs}
    head = _head(outputs[cache.logits], outputs[cache.next_token])
    if head is None or not kernels.has(MICROSOFT, "MatMulIntegerToFloat", head.hidden.dtype):
        return []
    greedy = _build(model, head)
    changed(model, greedy=greedy.name)
    return [Remark("analysis", NAME, "", reason="the best token is found by bounds where it alone is asked for")]


def idle_branch(model: ir.Model, *, greedy: bool) -> ir.Graph | None:
    """What a run leaves out: the product as it was, of a ``greedy`` one that is sure, else the screening."""
    cache = recorded(model)
    if cache is None or cache.greedy is None:
        return None
    asked = next(v for v in model.graph.inputs if v.name == cache.greedy)
    first = next(iter(asked.uses())).node
    second = next(iter(first.outputs[1].uses())).node
    left: ir.Graph = (second.attributes["else_branch"] if greedy else first.attributes["then_branch"]).as_graph()
    return left


def _head(logits: ir.Value, token: ir.Value) -> _Head | None:
    product, bias, choices = logits.producer(), None, _choices(logits, token)
    if product is None or not choices:
        return None
    nodes = [product, *choices]
    if product.op_type == "Add":
        scores, bias = sorted((v for v in product.inputs if v is not None), key=lambda v: constant(v) is not None)
        product = scores.producer()
        if product is None or len(scores.uses()) != 1 or constant(bias) is None:
            return None
        nodes = [product, *nodes]
    if product.op_type != "MatMul" or len(dims(product.inputs[0]) or []) != 3:
        return None
    hidden, table = product.inputs[0], _table(product.inputs[1])
    if hidden is None or table is None or (bias is not None and not _along(bias, table)):
        return None
    return _Head(nodes, hidden, table, bias, logits, token, [v for v in choices[-1].outputs if v is not token])


def _choices(logits: ir.Value, token: ir.Value) -> list[ir.Node]:
    """The nodes that choose the token, and nothing else reads the logits; none where that cannot be told."""
    choice, readers = token.producer(), [user for user, _ in logits.uses()]
    if choice is None or choice.op_type != "If":
        return readers if choice is not None and readers == [choice] and choice.inputs[0] is logits else []
    asked = choice.inputs[0].producer() if choice.inputs[0] is not None else None
    branches = [attribute.as_graph() for attribute in choice.attributes.values()]
    return [asked, choice] if asked is not None and all(user.graph in branches for user in readers) else []


def _along(bias: ir.Value, table: ir.Value) -> bool:
    """Whether it has one number for each row, in its last dimension."""
    rows, found = (dims(table) or [])[0], dims(bias) or []
    return found[-1:] == [rows] and all(d == 1 for d in found[:-1]) and len(found) <= _RANK


def _table(weight: ir.Value | None) -> ir.Value | None:
    """The embedding table that is the head's weights, turned."""
    turned = weight.producer() if weight is not None else None
    table = turned.inputs[0] if turned is not None and turned.op_type == "Transpose" else None
    tensor = constant(table)
    if tensor is None or len(tensor.shape) != 2 or tensor.size < _LEAST or not readable(tensor):
        return None
    return table


def _build(model: ir.Model, head: _Head) -> ir.Value:
    """Both choices in place of the head; the input that says whether only the token is asked for."""
    graph, op, names = model.graph, Builder(), Names(model)
    greedy = optional_input(graph, names, "greedy", np.array(False))
    screen = branch(graph, names, "screened", lambda inner: _screened(inner, head), NAME, head.nodes)
    unasked = branch(graph, names, "not asked", _unsure, NAME, head.nodes)
    token, sure = op.several("If", 2, greedy, then_branch=screen, else_branch=unasked)
    alone = branch(graph, names, "token alone", lambda inner: _alone(inner, token, head), NAME, head.nodes)
    graph.remove(head.nodes)
    outputs = list(graph.outputs)
    graph.outputs.clear()  # a value is an output of one graph alone
    made = [head.logits, head.token, *head.ranked]
    whole = ir.Graph([], made, nodes=head.nodes, name="whole head")
    given = op.several("If", len(made), sure, then_branch=alone, else_branch=whole)
    stamp(op.nodes, NAME, head.nodes)
    names.adopt(graph, op)
    for old, new in zip(made, given, strict=True):
        new.type, new.shape = old.type, old.shape
        new.name, old.name = old.name, names.value(f"{old.name}.whole")
        outputs[outputs.index(old)] = new
    graph.outputs.extend(outputs)
    graph.extend(op.nodes)
    return greedy


def _screened(op: Builder, head: _Head) -> tuple[ir.Value, ir.Value]:
    bias = None if head.bias is None else _numbers(head.bias).reshape(-1)
    return screened(op, head.hidden, head.table, _numbers(head.table), bias)


def _unsure(op: Builder) -> tuple[ir.Value, ir.Value]:
    return op.Identity(op.constant([[0]], "no_token", np.int64)), op.Identity(op.constant(False, "unsure"))


def _alone(op: Builder, token: ir.Value, head: _Head) -> Sequence[ir.Value]:
    """No row of logits, and the token; nothing ranked."""
    none = op.constant([0, 1, (dims(head.table) or [])[0]], "no_logits", np.int64)
    rest = nothing(op, [v.dtype for v in head.ranked if v.dtype is not None])
    return op.ConstantOfShape(none), op.Identity(token), *rest


def _numbers(v: ir.Value) -> Array:
    tensor = constant(v)
    assert tensor is not None, "the head was taken for its constants"
    return tensor.numpy()
