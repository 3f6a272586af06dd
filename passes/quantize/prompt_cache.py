"""Attention over an int8 cache in two ways: a token in the codes, several tokens in float32.

    If(S > 1)  several tokens: GroupQueryAttention(.., past * scale, ..), whose new keys and values are rounded
               a token:        GroupQueryAttention(.., past, .., k_scale, v_scale)

ONNX Runtime's kernel for quantized caches reads a quarter of the bytes, which is what a token waits for, but multiplies
many tokens 3 times slower than the one for float32: a prompt of 1500 tokens takes 1.1x this way, where it took 2x. An
If costs some 10 us. Both store the same codes, so they may take turns on one buffer, which the kernel changes in place
inside the If too.

Shapes: B batch, H heads of keys, P tokens in the cache, S new ones, T = P + S, D head size. Source: ONNX Runtime's
contrib operator GroupQueryAttention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.record import Cache
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp
from onnxsmith.passes.lower.kernels import MICROSOFT
from onnxsmith.passes.quantize.int8 import LARGEST_CODE

PAST, K_SCALE, V_SCALE = slice(3, 5), 12, 13  # places among the operator's inputs
_QUANTIZED: dict[str, Any] = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}


@dataclass(frozen=True)
class Lengths:
    """P and T, int64 [1], and whether S is above 1; and what slices begin with, end with, and cut."""

    past: ir.Value
    total: ir.Value
    several: ir.Value
    start: ir.Value
    end: ir.Value
    axis: ir.Value


def lengths(op: Builder, graph: ir.Graph, cache: Cache) -> Lengths:
    given = {v.name: v for v in graph.inputs}
    new, total = (op.Shape(given[name], start=1, end=2) for name in (cache.ids, cache.mask))
    several = op.Squeeze(op.Greater(new, op.constant([1], "one", np.int64)))
    places = {"start": 0, "end": np.iinfo(np.int64).max, "axis": 2}
    return Lengths(op.Sub(total, new), total, several, **{n: op.constant([i], n, np.int64) for n, i in places.items()})


def branched(node: ir.Node, known: Lengths, names: Names, rule: str) -> None:
    """Put the choice in the place of attention whose past and present are int8 already."""
    graph, op = node.graph, Builder()
    assert isinstance(graph, ir.Graph), "a site is a node of the model's graph"
    several, token = (_branch(graph, node, made, names, rule) for made in (_several(node, known), _token(node)))
    made = op.several("If", len(node.outputs), known.several, then_branch=several, else_branch=token)
    stamp(op.nodes, rule, [node])
    names.adopt(graph, op)
    graph.insert_before(node, op.nodes)
    for old, new in zip(node.outputs, made, strict=True):
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name, old.name = old.name, new.name
    graph.remove(node, safe=True)


def _branch(graph: ir.Graph, node: ir.Node, made: tuple[Builder, list[ir.Value]], names: Names, rule: str) -> ir.Graph:
    """These nodes with the types of what ``node`` gives; their constants are the whole graph's."""
    op, outputs = made
    for old, new in zip(node.outputs, outputs, strict=True):
        new.type, new.shape = old.type, old.shape
    stamp(op.nodes, rule, [node])
    names.adopt(graph, op)
    return ir.Graph([], outputs, nodes=op.nodes, name=f"{node.name}_{op.nodes[-1].op_type}")


def _token(node: ir.Node) -> tuple[Builder, list[ir.Value]]:
    op = Builder()
    return op, _attention(op, node, list(node.inputs), **_QUANTIZED)


def _several(node: ir.Node, known: Lengths) -> tuple[Builder, list[ir.Value]]:
    op, inputs = Builder(), list(node.inputs)
    scales, pasts = inputs[K_SCALE:], inputs[PAST]
    before = [op.Slice(past, known.start, known.past, known.axis) for past in pasts]
    inputs[PAST] = [
        op.Mul(op.Cast(codes, to=ir.DataType.FLOAT), scale) for codes, scale in zip(before, scales, strict=True)
    ]
    mixed, *present = _attention(op, node, inputs[:K_SCALE])
    stored = []
    for codes, kept, scale, past in zip(before, present, scales, pasts, strict=True):
        new = op.Slice(kept, known.past, known.total, known.axis)
        behind = op.Slice(past, known.total, known.end, known.axis)  # of a buffer that is longer
        stored.append(op.Concat(codes, _codes(op, new, scale), behind, axis=2))
    return op, [mixed, *stored]


def _attention(op: Builder, node: ir.Node, inputs: list[ir.Value | None], **more: Any) -> list[ir.Value]:
    told = {name: attribute.value for name, attribute in node.attributes.items()}
    return list(op.several(node.op_type, len(node.outputs), *inputs, domain=MICROSOFT, **told, **more))


def _codes(op: Builder, x: ir.Value, scale: ir.Value | None) -> ir.Value:
    """float32 -> int8, clipped"""
    lowest, highest = (op.constant(n, "largest_code", np.float32) for n in (-LARGEST_CODE, LARGEST_CODE))
    return op.Cast(op.Clip(op.Round(op.Div(x, scale)), lowest, highest), to=ir.DataType.INT8)
