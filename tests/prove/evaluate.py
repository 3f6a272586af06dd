"""A graph over the fields: numbers by our operators, whole ones and the movement of data by onnx's reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxsmith.passes.engine.values import constant
from tests.prove import attention  # noqa: F401  (enters its operators)
from tests.prove.field import Element, Unproved, exactly
from tests.prove.operators import OPERATORS

# They move elements and look at none.
_MOVING = frozenset(
    {
        "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Concat", "Split", "Slice", "Gather",
        "GatherElements", "GatherND", "Tile", "Pad", "Shape", "Size", "Trilu", "DepthToSpace", "SpaceToDepth",
    }
)  # fmt: skip
Value = Any  # an Element, or an array of integers or booleans


def evaluate(model: ir.Model, feeds: Mapping[str, Value]) -> dict[str, Value]:
    """The outputs by name. Raises Unproved where the fields do not reach."""
    known: dict[ir.Value, Value] = {}
    for v in model.graph.initializers.values():
        assert v.const_value is not None
        known[v] = _constant(v.const_value.numpy())
    known |= {v: feeds[str(v.name)] for v in model.graph.inputs if v.name in feeds}
    imports = [onnx.helper.make_opsetid(domain, number) for domain, number in model.opset_imports.items()]
    for node in model.graph:
        given = [None if v is None else known[v] for v in node.inputs]
        found = _run(node, given, imports)
        known |= dict(zip(node.outputs, found, strict=False))
    return {str(v.name): known[v] for v in model.graph.outputs}


def _constant(array: NDArray[Any]) -> Value:
    return array if array.dtype.kind in "iub" else exactly(array)


def _run(node: ir.Node, given: list[Value], imports: list[onnx.OperatorSetIdProto]) -> tuple[Value, ...]:
    if any(isinstance(attribute.value, ir.Graph) for attribute in node.attributes.values()):
        raise Unproved(f"a body in {node.op_type}")
    if node.op_type == "Cast" and (tensor := constant(node.inputs[0])) is not None:  # which rounds it
        return tuple(_constant(x) for x in _by_reference(node, [tensor.numpy()], imports))
    if node.op_type == "Constant":
        return (_constant(_literal(node)),)
    if (own := OPERATORS.get((node.domain, node.op_type))) is not None and (
        node.op_type in ("Cast", "CastLike") or any(isinstance(x, Element) for x in given)
    ):
        found = own(given, {name: attribute.value for name, attribute in node.attributes.items()})
        if found is not NotImplemented:
            return found if isinstance(found, tuple) else (found,)
    if node.domain:
        raise Unproved(f"{node.domain}.{node.op_type}")
    if not any(isinstance(x, Element) for x in given):
        return tuple(_constant(x) for x in _by_reference(node, given, imports))
    if node.op_type not in _MOVING:
        raise Unproved(node.op_type)
    return _moved(node, given, imports)


def _literal(node: ir.Node) -> NDArray[Any]:
    (attribute,) = node.attributes.values()
    if isinstance(attribute.value, ir.TensorProtocol):
        return attribute.value.numpy()
    return np.asarray(attribute.value, np.float32 if "float" in attribute.name else None)


def _moved(node: ir.Node, given: list[Value], imports: list[onnx.OperatorSetIdProto]) -> tuple[Value, ...]:
    """Each part of the elements by the same operator."""
    elements = [x for x in given if isinstance(x, Element)]
    parts = ["p", "infinite", *(["q"] if all(x.q is not None for x in elements) else [])]
    results = {
        part: _by_reference(node, [getattr(x, part) if isinstance(x, Element) else x for x in given], imports)
        for part in parts
    }
    if node.op_type in ("Shape", "Size"):
        return tuple(results["p"])
    return tuple(
        Element(p, results["q"][i] if "q" in results else None, results["infinite"][i])
        for i, p in enumerate(results["p"])
    )


def _by_reference(node: ir.Node, given: list[Value], imports: list[onnx.OperatorSetIdProto]) -> list[Any]:
    proto = ir.to_proto(node)
    names = [name for name, x in zip(proto.input, given, strict=True) if x is not None]
    graph = onnx.helper.make_graph(
        [proto],
        "one",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in dict.fromkeys(names)],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in proto.output],
    )
    try:
        run = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports))
        return list(run.run(None, {name: x for name, x in zip(proto.input, given, strict=True) if x is not None}))
    except Exception as e:  # onnx.reference has its own ways to say that it lacks an operator
        raise Unproved(f"{node.op_type}: {e}") from e
