"""Whether every token is treated alike and apart from the others, except in attention.

A token's keys and values may be kept only where nothing but attention looks at other tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from onnxsmith.passes.cache.cones import Cones
from onnxsmith.passes.cache.text import Refused, Text
from onnxsmith.passes.engine.values import attribute, constant, rank
from onnxsmith.passes.shapes import product, sizes

UNARY = frozenset(
    {"Abs", "Cast", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity"}
    | {"IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sign", "Sin"}
    | {"Softplus", "Sqrt", "Tanh"}
)
ELEMENTWISE = UNARY | frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul"}
    | {"Or", "Pow", "PRelu", "Sub", "Where", "Xor"}
)
_VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
_ALONG = frozenset({"ArgMax", "Concat", "LogSoftmax", "Slice", "Softmax", "Split"})  # along an axis
_REDUCTIONS = frozenset({"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"})


def check_rowwise(graph: ir.Graph, cones: Cones) -> None:
    """Refuse the first node that mixes tokens, or of which that is not known."""
    for node in graph:
        if node in cones.nodes or not any(v in cones.hidden for v in node.outputs) or is_attention(node):
            continue
        how = _CHECKS.get(node.op_type) if not node.domain else None
        if how is None or not how(node, cones) or None in map(cones.text.axis, node.outputs):
            raise Refused(f"{node.op_type} {node.name} does not treat each token apart from the others")


def is_attention(node: ir.Node) -> bool:
    """Whether it is the standard operator, the one place where tokens may meet."""
    return node.op_type == "Attention" and not node.domain


def _elementwise(node: ir.Node, cones: Cones) -> bool:
    """Operands meet along the tokens: counted from the end, the axis is the same in each that has one."""
    text = cones.text
    ends = {text.axis(v) - (rank(v) or 0) for v in _hidden(node, cones) if text.axis(v) is not None}  # type: ignore[operator]
    own = text.axis(node.outputs[0])
    return own is not None and ends == {own - (rank(node.outputs[0]) or 0)}


def _view(node: ir.Node, cones: Cones) -> bool:
    """A view keeps what stands behind the tokens, so also their order."""
    if node.op_type == "Transpose":
        return True
    source, result = node.inputs[0], node.outputs[0]
    before, after = sizes(source), sizes(result)
    if source is None or before is None or after is None:
        return False
    at, to = cones.text.axis(source), cones.text.axis(result)
    return at is not None and to is not None and product(before[at + 1 :]) == product(after[to + 1 :])


def _product(node: ir.Node, cones: Cones) -> bool:
    """Rows of tokens times weights."""
    x, *weights = node.inputs
    if x is None or attribute(node, "transA") or any(v in cones.hidden for v in weights):
        return False
    axis = cones.text.axis(x)
    return axis is not None and axis != (rank(x) or 0) - 1


def _norm(node: ir.Node, cones: Cones) -> bool:
    x = node.inputs[0]
    axis = cones.text.axis(x) if x is not None else None
    return x is not None and axis is not None and attribute(node, "axis") % (rank(x) or 1) > axis


def _along(node: ir.Node, cones: Cones) -> bool:
    """Along another axis than the tokens."""
    if node.op_type == "Slice":
        axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
        along = [] if axes is None else [int(a) for a in axes.numpy().ravel()]
    else:
        along = [attribute(node, "axis")]
    return bool(along) and all(_other_axes(v, along, cones.text) for v in _hidden(node, cones))


def _reduction(node: ir.Node, cones: Cones) -> bool:
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    along = [] if axes is None else [int(a) for a in axes.numpy().ravel()]
    return bool(along) and all(_other_axes(v, along, cones.text) for v in _hidden(node, cones))


def _gather(node: ir.Node, cones: Cones) -> bool:
    data, index = node.inputs
    if data not in cones.hidden:
        return index in cones.hidden and constant(data) is not None
    return constant(index) is not None and _other_axes(data, [attribute(node, "axis")], cones.text)


def _gather_nd(node: ir.Node, cones: Cones) -> bool:
    """At constant places of axes before the tokens'."""
    data, index = node.inputs
    places, axis = constant(index), cones.text.axis(data) if data is not None else None
    if places is None or axis is None:
        return False
    first, count = int(attribute(node, "batch_dims")), int(places.shape.numpy()[-1])
    return axis < first or axis >= first + count


def _other_axes(v: ir.Value | None, axes: list[int], text: Text) -> bool:
    return v is not None and text.axis(v) not in {a % (rank(v) or 1) for a in axes}


def _hidden(node: ir.Node, cones: Cones) -> list[ir.Value]:
    return [v for v in node.inputs if v is not None and v in cones.hidden]


_CHECKS: dict[str, Callable[[ir.Node, Cones], bool]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(_VIEWS, _view),
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "Expand": _elementwise,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _product,
    "MatMul": _product,
}
