"""Symbolic shape inference for the operators of a Transformer, where ONNX's own inference loses track.

ONNX names a dimension anew after each computed Reshape. Walking the graph once in order, with dimensions as products
of names, keeps ``batch`` and ``sequence`` through every view, product and elementwise operator. A rule answers only
what follows from its operator's definition; anything else is left unknown.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxsmith.passes.engine.absent import set_aside
from onnxsmith.passes.engine.values import attribute, dims
from onnxsmith.passes.shapes import ONE, Size, evaluate, product, reshaped, sizes, total, unnamed

Sizes = list[Size] | None
_WHOLE = 2**31 - 1  # an end that stands for the end of the axis
_SAME = frozenset(
    {"Softmax", "LayerNormalization", "RMSNormalization", "Cast", "Identity", "Erf", "Tanh", "Sigmoid", "Sqrt", "Relu"}
) | frozenset(
    {
        "Gelu",
        "Neg",
        "Not",
        "IsNaN",
        "Clip",
        "Exp",
        "Log",
        "Reciprocal",
        "Abs",
        "Dropout",
        "Trilu",
        "CumSum",
        "Cos",
        "Sin",
        "Softplus",
        "Sign",
        "Ceil",
        "Floor",
        "Round",
        "IsInf",
        "ScatterND",
        "ScatterElements",
    }
)
_BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Where", "And", "Or", "Equal", "Less", "Greater", "Max"}) | (
    frozenset({"Min", "LessOrEqual", "GreaterOrEqual"})
)

_BOOLEAN = frozenset(
    {"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not", "IsNaN", "IsInf"}
)


def infer(model: ir.Model) -> None:
    """Shape inference in place: ONNX's own, then this module's, then ONNX's for what follows from it."""
    inference = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    with set_aside(model):
        inference(model)
    if sum(propagate(graph) for graph in model.graphs()):
        with set_aside(model):
            inference(model)


def follow(model: ir.Model) -> None:
    """After a rewrite, the types and shapes of new values, in place: by this module where it knows them all.

    ONNX's inference serializes the whole model; it runs only when a value is left without a type or a shape.
    """
    for graph in model.graphs():
        for node in graph:
            _type(node)
        propagate(graph)
    if any(v.dtype is None or v.shape is None for node in model.graph.all_nodes() for v in node.outputs):
        infer(model)


def _type(node: ir.Node) -> None:
    """The type of a node's only output, for the operators that have a shape rule."""
    if node.domain or len(node.outputs) != 1 or node.outputs[0].dtype is not None:
        return
    if node.op_type == "Cast":
        node.outputs[0].dtype = ir.DataType(attribute(node, "to"))
    elif node.op_type in _BOOLEAN:
        node.outputs[0].dtype = ir.DataType.BOOL
    elif node.op_type == "Shape":
        node.outputs[0].dtype = ir.DataType.INT64
    elif node.op_type == "ConstantOfShape":
        value = node.attributes.get("value")
        node.outputs[0].dtype = ir.DataType.FLOAT if value is None else value.as_tensor().dtype
    elif node.op_type in _RULES:
        source = node.inputs[1 if node.op_type == "Where" else 0]
        if source is not None and source.dtype is not None:
            node.outputs[0].dtype = source.dtype


def propagate(graph: ir.Graph) -> bool:
    """Set every output shape that the rules can tell and that is not known yet. Returns whether any was set."""
    changed = False
    for node in graph:
        if node.domain or not any(_open(v) for v in node.outputs):
            continue
        for v, found in zip(node.outputs, _results(node), strict=False):
            if found is not None and _open(v) and _sharper(found, v):
                v.shape = ir.Shape([s.dim for s in found])
                changed = True
    return changed


def derived(v: ir.Value) -> list[int | str | None] | None:
    """The dimensions that the operator gives a value, else those that are recorded.

    What an exporter calls a dimension of an output need not be what it calls the same one inside.
    """
    node = v.producer()
    found = (
        dict(zip(node.outputs, _results(node), strict=False)).get(v) if node is not None and not node.domain else None
    )
    return dims(v) if found is None else [size.dim for size in found]


def _results(node: ir.Node) -> list[Sizes]:
    """The shapes of the outputs that the rules know."""
    if node.op_type == "Split":
        return _split(node)
    rule = _RULES.get(node.op_type)
    return [rule(node)] if rule is not None else []


def _open(v: ir.Value) -> bool:
    known = dims(v)
    return known is None or any(unnamed(d) for d in known)


def _sharper(found: list[Size], v: ir.Value) -> bool:
    """Whether the result says something new without guessing: names of unknown dimensions start with "?"."""
    if any(name.startswith("?") for size in found for name in size.names):
        return False
    known = dims(v)
    return known is None or [s.dim for s in found] != known


def _first(node: ir.Node) -> Sizes:
    return sizes(node.inputs[0])


def _broadcast(node: ir.Node) -> Sizes:
    shapes = [sizes(v) for v in node.inputs]
    if any(s is None for s in shapes):
        return None
    rank = max(len(s) for s in shapes if s is not None)
    padded = [[ONE] * (rank - len(s)) + s for s in shapes if s is not None]
    return [_meet(list(column)) for column in zip(*padded, strict=True)]


def _meet(column: list[Size]) -> Size:
    """The one size that is not 1. Two named ones that differ are equal or 1 at run time: which, is not known."""
    wide = list(dict.fromkeys(size for size in column if size != ONE))
    if not wide:
        return ONE
    if len(wide) == 1:
        return wide[0]
    numbers = [size for size in wide if size.known is not None]
    return numbers[0] if numbers else Size(1, ("?",))


def _transpose(node: ir.Node) -> Sizes:
    found = _first(node)
    if found is None:
        return None
    perm = attribute(node, "perm") or list(range(len(found)))[::-1]
    return [found[i] for i in perm]


def _matmul(node: ir.Node) -> Sizes:
    a, b = sizes(node.inputs[0]), sizes(node.inputs[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    rank = max(len(a), len(b))
    batch = [[ONE] * (rank - len(s)) + s[:-2] for s in (a, b)]
    return [_meet(list(column)) for column in zip(*batch, strict=False)][: rank - 2] + [a[-2], b[-1]]


def _einsum(node: ir.Node) -> Sizes:
    terms, arrow, result = attribute(node, "equation").replace(" ", "").partition("->")
    found: dict[str, list[Size]] = {}
    for term, v in zip(terms.split(","), node.inputs, strict=True):
        shape = sizes(v)
        if shape is None or len(shape) != len(term):  # an ellipsis stands for several
            return None
        for letter, size in zip(term, shape, strict=True):
            found.setdefault(letter, []).append(size)
    return [_agreed(found[letter]) for letter in result] if arrow and "." not in result else None


def _gather(node: ir.Node) -> Sizes:
    data, index = sizes(node.inputs[0]), sizes(node.inputs[1])
    if data is None or index is None:
        return None
    axis = attribute(node, "axis") % len(data)
    return data[:axis] + index + data[axis + 1 :]


def _expand(node: ir.Node) -> Sizes:
    source, target = _first(node), evaluate(node.inputs[1])
    if source is None or target is None:
        return None
    rank = max(len(source), len(target))
    padded = [[ONE] * (rank - len(s)) + s for s in (source, target)]
    return [_meet(list(column)) for column in zip(*padded, strict=True)]


def _tile(node: ir.Node) -> Sizes:
    found, repeats = _first(node), evaluate(node.inputs[1])
    if found is None or repeats is None or len(found) != len(repeats):
        return None
    return [size * times for size, times in zip(found, repeats, strict=True)]


def _range(node: ir.Node) -> Sizes:
    start, limit, step = (evaluate(v) for v in node.inputs)
    return limit if start == [Size(0)] and step == [ONE] else None


def _unsqueeze(node: ir.Node) -> Sizes:
    found, axes = _first(node), evaluate(node.inputs[1])
    if found is None or axes is None or any(a.known is None for a in axes):
        return None
    rank = len(found) + len(axes)
    new, rest = {a.factor % rank for a in axes}, iter(found)
    return [ONE if i in new else next(rest) for i in range(rank)]


def _axes(node: ir.Node, rank: int) -> set[int] | None:
    """The axes input as non-negative numbers; None when it is absent or computed."""
    axes = evaluate(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or any(a.known is None for a in axes):
        return None
    return {a.factor % rank for a in axes}


def _squeeze(node: ir.Node) -> Sizes:
    found = _first(node)
    gone = _axes(node, len(found)) if found is not None else None
    if found is None or gone is None:
        return None
    return [s for i, s in enumerate(found) if i not in gone]


def _split(node: ir.Node) -> list[Sizes]:
    found = _first(node)
    if found is None:
        return []
    axis, parts = attribute(node, "axis") % len(found), len(node.outputs)
    lengths = evaluate(node.inputs[1]) if len(node.inputs) > 1 else [found[axis] // Size(parts)] * parts
    if lengths is None or len(lengths) != parts:
        return []
    return [None if size is None else found[:axis] + [size] + found[axis + 1 :] for size in lengths]


def _concat(node: ir.Node) -> Sizes:
    shapes = [sizes(v) for v in node.inputs]
    first = shapes[0]
    if first is None or any(s is None or len(s) != len(first) for s in shapes):
        return None
    axis = attribute(node, "axis") % len(first)
    columns = [list(column) for column in zip(*(s for s in shapes if s is not None), strict=True)]
    return [total(column) if i == axis else _agreed(column) for i, column in enumerate(columns)]


def _agreed(column: list[Size]) -> Size:
    """Of sizes that the operator requires to be equal, one that is known."""
    known = [s for s in column if not any(map(unnamed, s.names))]
    return min(known or column, key=lambda s: len(s.names))


def _slice(node: ir.Node) -> Sizes:
    found = _first(node)
    bounds = [evaluate(v) for v in node.inputs[1:]]
    if found is None or len(node.inputs) < 4 or any(b is None for b in bounds):
        return None
    starts, ends, axes, *steps = [b for b in bounds if b is not None]
    found = list(found)
    for start, end, axis, step in zip(starts, ends, axes, steps[0] if steps else [ONE] * len(axes), strict=True):
        if axis.known is None:
            return None
        i = axis.factor % len(found)
        found[i] = _sliced(found[i], start, end, step) or Size(1, (f"?{node.name}.{i}",))
    return found


def _sliced(size: Size, start: Size, end: Size, step: Size) -> Size | None:
    """The length of a slice. One that is asked for by name is taken to fit: a table as long as the positions need."""
    if size.known is not None and all(s.known is not None for s in (start, end, step)):
        return Size(len(range(*slice(start.factor, end.factor, step.factor).indices(size.factor))))
    if step == ONE and start.names and start.factor < 0 and (end.known or 0) >= _WHOLE:
        return Size(-1) * start  # the last so many, as in places[:, -length:]
    if start != Size(0) or step != ONE:
        return None
    return size if end == size or (end.known or 0) >= _WHOLE else (end if end.known is None else None)


def _constant_of_shape(node: ir.Node) -> Sizes:
    return evaluate(node.inputs[0])


def _flatten(node: ir.Node) -> Sizes:
    found = _first(node)
    if found is None:
        return None
    axis = attribute(node, "axis") % (len(found) + 1)
    return [product(found[:axis]), product(found[axis:])]


def _attention(node: ir.Node) -> Sizes:
    q, v = sizes(node.inputs[0]), sizes(node.inputs[2])
    if q is None or v is None:
        return None
    if len(q) == 4:
        return [*q[:3], v[-1]]
    per_head = v[-1] // Size(attribute(node, "kv_num_heads"))
    return None if per_head is None else [*q[:2], per_head * Size(attribute(node, "q_num_heads"))]


def _reduce(node: ir.Node) -> Sizes:
    found = _first(node)
    reduced = _axes(node, len(found)) if found is not None else None
    if found is None or reduced is None:
        return None
    if attribute(node, "keepdims"):
        return [ONE if i in reduced else s for i, s in enumerate(found)]
    return [s for i, s in enumerate(found) if i not in reduced]


_RULES: dict[str, Callable[[ir.Node], Sizes]] = {
    **dict.fromkeys(_SAME, _first),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax"), _reduce),
    "Transpose": _transpose,
    "MatMul": _matmul,
    "Einsum": _einsum,
    "Range": _range,
    "Shape": lambda node: None if (found := evaluate(node.outputs[0])) is None else [Size(len(found))],
    "Attention": _attention,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Flatten": _flatten,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _tile,
    "GatherElements": lambda node: sizes(node.inputs[1]),
    "Reshape": reshaped,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
}
