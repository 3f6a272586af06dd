"""Products of one input become one: queries, keys and values, and gate and up of a gated feed-forward network.

    GroupQueryAttention(x · Wq + bq, x · Wk + bk, x · Wv + bv, ..)  ->  GroupQueryAttention(x · W + b, -, -, ..)
    act(x · Wg) * (x · Wu)                                          ->  g, u = Split(x · W);  act(g) * u

with the weights behind each other, W = [Wq Wk Wv] [K, (H + 2 G) * D] for H heads of queries and G of keys, or
[Wg Wu] [K, 2 F]. A token at a time, a product of this size costs as much to start and to share among threads as to
compute: with one product of queries, keys and values a step of a decoder (K 576, 30 layers) takes 0.94x of the time
in 4 bits, 0.98x in float32, and with one of gate and up 0.98x of that in 4 bits, but 1.04x in float32. Sources: ONNX
Runtime's contrib operator GroupQueryAttention; Shazeer 2020, arXiv:2002.05202 (gated feed-forward networks).
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

QKV, GATE = "packed-qkv", "packed-gate"
_PARTS = 3


@dataclass(frozen=True)
class _Site:
    """Products that a node alone reads, in the order of its ``inputs``: of x [.., K], with weights and biases [N]."""

    node: ir.Node
    products: list[ir.Value]
    x: ir.Value
    weights: list[ir.Value]
    biases: list[ir.Value]


def packed_qkv(model: ir.Model) -> list[Remark]:
    """Join the products of every GroupQueryAttention whose queries, keys and values come from one input."""
    nodes = [n for n in model.graph if n.op_type == "GroupQueryAttention" and n.domain == MICROSOFT]
    sites = [site for n in nodes if (site := _attention(n)) is not None]
    names = Names(model)
    for site in sites:
        op = Builder()
        whole = _joined(op, site, "qkv")
        _insert(op, site, names, QKV)
        for i, v in enumerate([whole, None, None]):
            site.node.replace_input_with(i, v)
    return _told(model, sites, QKV, "queries, keys and values")


def packed_gates(model: ir.Model) -> list[Remark]:
    """Join the two products of every gated feed-forward network, and split what they give."""
    nodes = [n for n in model.graph if n.op_type == "Mul" and not n.domain]
    sites = [site for n in nodes if (site := _feed_forward(n)) is not None]
    names = Names(model)
    for site in sites:
        op = Builder()
        halves = op.several("Split", 2, _joined(op, site, "gate_up"), axis=-1, num_outputs=2)
        for half, weight in zip(halves, site.weights, strict=True):
            _annotate(half, site.x, weight)
        _insert(op, site, names, GATE)
        for half, v in zip(halves, site.products, strict=True):
            v.replace_all_uses_with(half)
    return _told(model, sites, GATE, "gate and up")


def _attention(node: ir.Node) -> _Site | None:
    values = [v for v in node.inputs[:_PARTS] if v is not None and len(v.uses()) == 1]
    return _site(node, values) if len(values) == _PARTS else None


def _feed_forward(node: ir.Node) -> _Site | None:
    """The site of a multiplication of one product with another, behind an activation."""
    for up, acted in (node.inputs, node.inputs[::-1]):
        gate = _activated(acted)
        if gate is None or up is None or gate is up:
            continue
        site = _site(node, [gate, up])
        if site is not None and dims(site.weights[0]) == dims(site.weights[1]):
            return site
    return None


def _activated(v: ir.Value | None) -> ir.Value | None:
    """The product in act(product), or in product * sigmoid(product)."""
    node = v.producer() if v is not None else None
    inputs = node.inputs if node is not None else ()
    return next((i for i in inputs if i is not None and product_of(i) is not None), None)


def _site(node: ir.Node, values: list[ir.Value]) -> _Site | None:
    found = [p for v in values if not v.is_graph_output() and (p := product_of(v)) is not None]
    inputs, weights, biases = {x for x, _, _ in found}, [w for _, w, _ in found], [b for _, _, b in found if b]
    alike = len(inputs) == 1 and all(dims(x) for x in inputs) and len({v.dtype for v in (*weights, *biases)}) == 1
    if len(found) < len(values) or not alike or len(biases) not in (0, len(values)):
        return None
    return _Site(node, values, inputs.pop(), weights, biases)


def _joined(op: Builder, site: _Site, hint: str) -> ir.Value:
    """The product of all of them."""
    weight = _constant(op, site.weights, f"{hint}_weight")
    whole = op.MatMul(site.x, weight)
    if site.biases:
        whole = op.Add(whole, _constant(op, site.biases, f"{hint}_bias"))
    for made in op.nodes:
        _annotate(made.outputs[0], site.x, weight)
    return whole


def _annotate(v: ir.Value, x: ir.Value, weight: ir.Value) -> None:
    """Give the value the type and the shape of the product."""
    v.type, v.shape = x.type, ir.Shape([*(dims(x) or [])[:-1], *(dims(weight) or [])[-1:]])


def _constant(op: Builder, parts: list[ir.Value], hint: str) -> ir.Value:
    tensors = [tensor for v in parts if (tensor := constant(v)) is not None]
    return op.lazy_constant(joined(tensors), hint)


def _insert(op: Builder, site: _Site, names: Names, rule: str) -> None:
    graph = site.node.graph
    assert isinstance(graph, ir.Graph), "a site is a node of the model's graph"
    stamp(op.nodes, rule, [n for v in site.products for n in _nodes(v)])
    names.adopt(graph, op)
    graph.insert_before(site.node, op.nodes)


def _nodes(v: ir.Value) -> list[ir.Node]:
    """The product that gives the value, and the addition of its bias."""
    last = v.producer()
    assert last is not None, "a site has products"
    if last.op_type != "Add":
        return [last]
    return [n for i in last.inputs if i is not None and (n := i.producer()) is not None] + [last]


def _told(model: ir.Model, sites: list[_Site], rule: str, parts: str) -> list[Remark]:
    if not sites:
        return []
    model.graph.sort()  # an activation stands before the node that its site is named after
    prune(model)
    return [Remark("analysis", rule, "", reason=f"{len(sites)} layers compute {parts} in one product")]
