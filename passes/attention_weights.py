"""Attention weights as further outputs of a lifted model: softmax(scores) of each Attention, [B, H, S, T].

The operator gives them itself: ONNX operator specification, Attention-23, qk_matmul_output_mode 3. The outputs have
the names of transformers' ``output_attentions``: "attentions.0" and so on, and for an encoder-decoder
"encoder_attentions", "decoder_attentions" and "cross_attentions", each counted from the first layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.values import attribute, dims

TARGET = "decoder_"  # how the inputs of an encoder-decoder's target begin
_AFTER_SOFTMAX = 3


def attention_weights(model: ir.Model) -> list[str]:
    """Add the outputs, in place; returns their names in the graph's order, none where nothing is an Attention."""
    graph, names = model.graph, Names(model)
    inputs = [v for v in graph.inputs if str(v.name).startswith(TARGET)]
    target = _computed_from(graph, inputs)
    counts: Counter[str] = Counter()
    added = []
    for node in [n for n in graph if n.op_type == "Attention" and not n.domain]:
        kind = _kind(node, target) if inputs else "attentions"
        weights = _with_weights(graph, names, node)
        weights.name = names.value(f"{kind}.{counts[kind]}")
        counts[kind] += 1
        graph.outputs.append(weights)
        added.append(weights.name)
    return added


def _computed_from(graph: ir.Graph, inputs: Iterable[ir.Value]) -> set[ir.Value]:
    """The inputs and all that depends on what they hold, which is more than their shape."""
    found = set(inputs)
    for node in graph:
        if node.op_type != "Shape" and any(v in found for v in node.inputs):
            found.update(node.outputs)
    return found


def _kind(node: ir.Node, target: set[ir.Value]) -> str:
    query, key = node.inputs[:2]
    if query not in target:
        return "encoder_attentions"
    return "decoder_attentions" if key in target else "cross_attentions"


def _with_weights(graph: ir.Graph, names: Names, node: ir.Node) -> ir.Value:
    """Put a node with the further output in the place of this one."""
    op = Builder()
    given = {name: attr.value for name, attr in node.attributes.items()} | {"qk_matmul_output_mode": _AFTER_SOFTMAX}
    result, *cache, weights = op.several("Attention", 4, *node.inputs, **given)
    for output in cache:
        output.name = ""
    own = node.outputs[0]
    weights.type, weights.shape = own.type, ir.Shape(_shape(node))
    names.adopt(graph, op)
    ir.convenience.replace_nodes_and_values(graph, node, [node], op.nodes, [own], [result])
    return weights


def _shape(node: ir.Node) -> list[int | str | None]:
    """[B, H, S, T] of queries and keys [B, H, S, D], or [B, S, H*D] where an attribute tells how many heads."""
    query, key = dims(node.inputs[0]), dims(node.inputs[1])
    assert query is not None and key is not None, "what was lifted has shapes"
    heads = query[1] if len(query) == 4 else attribute(node, "q_num_heads")
    return [query[0], heads, query[-2], key[-2]]
