"""Questions about values and nodes that patterns, requirements and rewrites all ask."""

from __future__ import annotations

import functools
from typing import Any

import onnx
import onnx_ir as ir

from onnxsmith.passes.engine.absent import AbsentTensor


def constant(v: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer or a Constant node; a graph input with a default is no constant."""
    if v is None or v.is_graph_input():
        return None
    return ir.convenience.get_const_tensor(v)


def readable(tensor: ir.TensorProtocol) -> bool:
    """Whether the numbers are there: a structure has none for its weights."""
    return not isinstance(tensor, AbsentTensor)


def scalar(v: ir.Value | None) -> float | None:
    """The element of a one-element constant of any rank, or None."""
    tensor = constant(v)
    if tensor is None or tensor.size != 1 or not readable(tensor):
        return None
    return tensor.numpy().item()  # type: ignore[no-any-return]


def dims(v: ir.Value | None) -> list[int | str | None] | None:
    """The dimensions as ints, names or None for unknown; None when the rank is unknown."""
    if v is None or v.shape is None:
        return None
    return [d if isinstance(d, int) else d.value for d in v.shape]


def rank(v: ir.Value | None) -> int | None:
    return None if v is None or v.shape is None else len(v.shape)


def widens(v: ir.Value, node: ir.Node) -> bool:
    """Whether a one-element input may give the node's result more dimensions than its other inputs have."""
    own, others = rank(v), [rank(i) for i in node.inputs if i is not None and i is not v]
    known = [r for r in others if r is not None]
    return own != 0 and (own is None or len(known) < len(others) or own > max(known, default=0))


def attribute(node: ir.Node, name: str) -> Any:
    """An attribute's value, or its schema default at the model's opset, or None. Tuples become lists."""
    if (given := node.attributes.get(name)) is not None:
        return list(given.value) if isinstance(given.value, tuple) else given.value
    version = opset(node)
    return None if version is None else _default(node.domain, node.op_type, version, name)


def opset(node: ir.Node) -> int | None:
    """The version of the node's domain that the model imports."""
    if node.version is not None:
        return node.version
    return None if node.graph is None else node.graph.opset_imports.get(node.domain)


@functools.cache
def _default(domain: str, op_type: str, version: int, name: str) -> Any:
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    declared = schema.attributes.get(name)
    if declared is None or not declared.default_value.type:
        return None
    value = onnx.helper.get_attribute_value(declared.default_value)
    return value.decode() if isinstance(value, bytes) else value


def show(x: object) -> str:
    """A value, node or constant in a few words for a message."""
    if x is None:
        return "no input"
    if not isinstance(x, ir.Value):
        return str(x)
    if (producer := x.producer()) is not None:
        kind = producer.op_type
    elif x.is_graph_input():
        kind = "graph input"
    else:
        kind = "constant"
    shape = "[?]" if x.shape is None else f"[{', '.join('?' if d is None else str(d) for d in dims(x) or [])}]"
    element = "?" if x.dtype is None else x.dtype.name
    literal = scalar(x)
    return f"{kind} {x.name} {element}{shape}" + ("" if literal is None else f" = {literal:.6g}")
