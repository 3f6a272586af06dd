"""A 16-bit model as one that every CPU runs: each operator in float32, each result rounded to what it would be.

ONNX Runtime's CPU provider has no bfloat16 products and few float16 kernels. Kernels of GPUs sum in float32 and round
their result, which is what this does too; what they round in between is not seen.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxsmith.passes.cache.record import changed, recorded
from onnxsmith.passes.engine.absent import derived
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def is_narrow(model: ir.Model) -> bool:
    """Whether any value of the model's main graph is a 16-bit float."""
    return any(v.dtype in _NARROW for node in model.graph for v in node.outputs)


def widened(model: ir.Model) -> ir.Model:
    """A copy with float32 in place of 16-bit floats, inputs, outputs and a cache too.

    Run it with all optimizations off.
    """
    model = model.clone()
    if recorded(model) is not None:
        changed(model, dtype="float32")
    graph, names = model.graph, Names(model)
    for v in graph.initializers.values():
        _widen_weight(v)
    for v in [v for v in graph.inputs if v.dtype in _NARROW]:
        _round(graph, names, v, None)
    for node in list(graph):
        for v in [v for v in node.outputs if v.dtype in _NARROW]:
            _round(graph, names, v, node)
    return model


def _widen_weight(v: ir.Value) -> None:
    tensor = v.const_value
    if tensor is None or tensor.dtype not in _NARROW:
        return
    shape = ir.Shape(tensor.shape.numpy())
    v.const_value = derived(tensor, lambda x: x.astype("float32"), shape, ir.DataType.FLOAT)
    v.type = ir.TensorType(ir.DataType.FLOAT)


def _round(graph: ir.Graph, names: Names, v: ir.Value, producer: ir.Node | None) -> None:
    """Let all readers of the value read it rounded; what gives it gives float32."""
    narrow, op = v.dtype, Builder()
    is_cast = producer is not None and producer.op_type == "Cast"
    rounded = op.Cast(v if is_cast else op.Cast(v, to=narrow), to=ir.DataType.FLOAT)
    users = [(node, i) for node, i in v.uses() if node not in op.nodes]
    rounded.type, rounded.shape = ir.TensorType(ir.DataType.FLOAT), v.shape
    names.adopt(graph, op)
    if not is_cast:
        v.type = ir.TensorType(ir.DataType.FLOAT)
    for node, i in users:
        node.replace_input_with(i, rounded)
    if v.is_graph_output():
        rounded.name, v.name = v.name, rounded.name
        graph.outputs[list(graph.outputs).index(v)] = rounded
    if producer is None:
        graph.insert_before(graph[0], op.nodes)
    else:
        graph.insert_after(producer, op.nodes)
