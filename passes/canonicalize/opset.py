"""One opset for every graph: 23, the first with Attention, RotaryEmbedding and RMSNormalization.

onnx's own converter does the work. It wants one small proto and drops node metadata, so the weights stay out of
its sight (they become graph inputs for its duration) and names and metadata are put back by output name.
"""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from onnxsmith.errors import BadInput, first_line
from onnxsmith.passes.engine.values import readable

OPSET = 23
OLDEST, NEWEST = 9, 25
_SMALL_BYTES = 4096  # axes, shapes and scalars, which the converter has to read

# ONNX Runtime has these in ONNX's own domain at every opset, and its optimizer writes them into old models.
ORT_OPERATORS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
_ASIDE = "onnxsmith.aside"


def convert(model: ir.Model) -> ir.Model:
    """Return the model at opset 23, or as it is when it is newer.

    Raises:
        BadInput: no ONNX opset at all, one outside 9..25, or a graph that the converter refuses.
    """
    version = model.opset_imports.get("")
    if version is None:
        raise BadInput("the model imports no ONNX opset; export it again with the default domain in opset_import")
    if not OLDEST <= version <= NEWEST:
        raise BadInput(f"the model is at opset {version}; opsets {OLDEST} to {NEWEST} can be read: export it again")
    if version >= OPSET:
        return model
    metadata = {_key(n): (n.name, dict(n.metadata_props)) for n in model.graph.all_nodes()}
    given = {v.name for v in model.graph.inputs}
    weights = _detach(model)
    aside = _set_aside(model, version)
    try:
        proto = onnx.version_converter.convert_version(ir.to_proto(model), OPSET)
    except Exception as e:  # the C++ converter raises whatever it meets
        raise BadInput(f"the model cannot be raised from opset {version} to {OPSET}: {first_line(e)}") from e
    finally:
        _attach(model, weights, given)
    converted = ir.from_proto(proto)
    if aside:
        _bring_back(converted)
    _attach(converted, weights, given)
    _restore(converted, model, metadata)
    return converted


def share_imports(model: ir.Model) -> None:
    """Let the bodies of If, Loop and Scan answer for the model's opsets, by which default attributes are told."""
    for graph in model.graph.subgraphs():
        graph.opset_imports.update(model.opset_imports)


def _key(node: ir.Node) -> str:
    return "\0".join(str(v.name) for v in node.outputs)


def _set_aside(model: ir.Model, version: int) -> bool:
    """Move ORT's own operators, which the converter does not know, out of its sight. Returns whether any."""
    unknown = {op for op in ORT_OPERATORS if not onnx.defs.has(op, version)}
    nodes = [n for n in model.graph.all_nodes() if not n.domain and n.op_type in unknown]
    for node in nodes:
        node.domain = _ASIDE
    if nodes:
        model.opset_imports[_ASIDE] = 1
    return bool(nodes)


def _bring_back(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if node.domain == _ASIDE:
            node.domain = ""
            if node.op_type == "SimplifiedLayerNormalization" and len(node.outputs) == 1:
                node.op_type = "RMSNormalization"  # the same inputs and attributes, in the standard since opset 23
    del model.opset_imports[_ASIDE]


def _detach(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Turn large initializers into plain graph inputs; returns their tensors by name."""
    graph, weights = model.graph, {}
    for name, v in list(graph.initializers.items()):
        if v.const_value is None or v.const_value.dtype == ir.DataType.STRING:
            continue
        if v.const_value.nbytes <= _SMALL_BYTES and readable(v.const_value):
            v.const_value = ir.tensor(v.const_value.numpy(), name=name)  # a proto forgets the folder of a file
            continue
        weights[name] = v.const_value
        v.shape, v.type = ir.Shape(v.const_value.shape.numpy()), ir.TensorType(v.const_value.dtype)
        del graph.initializers[name]
        v.const_value = None
        if v not in graph.inputs:
            graph.inputs.append(v)
    return weights


def _attach(model: ir.Model, weights: dict[str, ir.TensorProtocol], given: set[str | None]) -> None:
    """Put the tensors back; ``given`` are the names that were graph inputs before."""
    graph = model.graph
    for v in list(graph.inputs):
        if v.name not in weights:
            continue
        if v.name not in given:
            graph.inputs.remove(v)
        v.const_value = weights[v.name]
        graph.register_initializer(v)


def _restore(converted: ir.Model, original: ir.Model, metadata: dict[str, tuple[str | None, dict[str, str]]]) -> None:
    """Node names and metadata by output name, value shapes by name, and the model's own header."""
    for node in converted.graph.all_nodes():
        if (kept := metadata.get(_key(node))) is not None:
            node.name = kept[0]
            node.metadata_props.update(kept[1])
    shapes = {v.name: v for n in original.graph.all_nodes() for v in n.outputs}
    for node in converted.graph.all_nodes():
        for v in node.outputs:
            known = shapes.get(v.name)
            if known is not None and known.shape is not None:
                v.shape, v.type = known.shape, known.type or v.type
    converted.metadata_props.update(original.metadata_props)
    converted.producer_name, converted.producer_version = original.producer_name, original.producer_version
