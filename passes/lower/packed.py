"""Queries, keys and values from one product: GroupQueryAttention takes them behind each other.

    GroupQueryAttention(x · Wq + bq, x · Wk + bk, x · Wv + bv, ..)  ->  GroupQueryAttention(x · W + b, -, -, ..)

with W = [Wq Wk Wv] [K, (H + 2 G) * D] for H heads of queries and G of keys. A token at a time, a product of this size
costs as much to start and to share among threads as to compute: a step of a decoder (K 576, 30 layers) takes 0.94x of
the time with weights of 4 bits, 0.98x in float32. Source: ONNX Runtime's contrib operator GroupQueryAttention.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.canonicalize import prune
from onnxsmith.passes.engine.absent import joined
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import constant, dims
from onnxsmith.passes.lift.packed import product_of
from onnxsmith.passes.lower.kernels import MICROSOFT

NAME = "packed-qkv"
_PARTS = 3


@dataclass(frozen=True)
class _Site:
    """An attention, and the three products that it alone reads: their input [B, S, K], weights [K, N], biases [N]."""

    node: ir.Node
    x: ir.Value
    weights: list[ir.Value]
    biases: list[ir.Value]


def packed_qkv(model: ir.Model) -> list[Remark]:
    """Join the products of every GroupQueryAttention whose queries, keys and values come from one input."""
    graph, names = model.graph, Names(model)
    sites = [site for node in graph if (site := _site(node)) is not None]
    for site in sites:
        _join(graph, names, site)
    if not sites:
        return []
    prune(model)
    return [Remark("analysis", NAME, "", reason=f"{len(sites)} layers compute queries, keys and values in one product")]


def _site(node: ir.Node) -> _Site | None:
    if node.op_type != "GroupQueryAttention" or node.domain != MICROSOFT:
        return None
    values = [v for v in node.inputs[:_PARTS] if v is not None]
    found = [p for v in values if len(v.uses()) == 1 and not v.is_graph_output() and (p := product_of(v)) is not None]
    if len(found) < _PARTS:
        return None
    inputs, weights, biases = {x for x, _, _ in found}, [w for _, w, _ in found], [b for _, _, b in found if b]
    alike = len(inputs) == 1 and all(dims(x) for x in inputs) and len({v.dtype for v in (*weights, *biases)}) == 1
    if not alike or len(biases) not in (0, _PARTS):
        return None
    return _Site(node, inputs.pop(), weights, biases)


def _join(graph: ir.Graph, names: Names, site: _Site) -> None:
    op, node = Builder(), site.node
    old = [v for v in node.inputs[:_PARTS] if v is not None]
    weight = _joined(op, site.weights, "qkv_weight")
    whole = op.MatMul(site.x, weight)
    if site.biases:
        whole = op.Add(whole, _joined(op, site.biases, "qkv_bias"))
    for made in op.nodes:
        made.outputs[0].type = site.x.type
        made.outputs[0].shape = ir.Shape([*(dims(site.x) or [])[:-1], *(dims(weight) or [])[-1:]])
    stamp(op.nodes, NAME, [n for v in old for n in _nodes(v)])
    names.adopt(graph, op)
    graph.insert_before(node, op.nodes)
    for i, v in enumerate([whole, None, None]):
        node.replace_input_with(i, v)


def _nodes(v: ir.Value) -> list[ir.Node]:
    """The product that gives the value, and the addition of its bias."""
    last = v.producer()
    assert last is not None, "a site has products"
    if last.op_type != "Add":
        return [last]
    return [n for i in last.inputs if i is not None and (n := i.producer()) is not None] + [last]


def _joined(op: Builder, parts: list[ir.Value], hint: str) -> ir.Value:
    tensors = [tensor for v in parts if (tensor := constant(v)) is not None]
    return op.lazy_constant(joined(tensors), hint)
