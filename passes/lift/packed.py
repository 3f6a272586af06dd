"""Packed products taken apart: one product whose columns are then split becomes one product for each part.

    q, k, v = split(x · [Wq Wk Wv] + b)     q = x · Wq + bq,  k = x · Wk + bk,  v = x · Wv + bv

Queries, keys and values (GPT-2, ViT) or gate and up (Phi-3) often come from one matrix, cut by Split, Slice, or a
Gather behind a Reshape. Apart, every model looks the same to the rules that follow; whether packing them again pays is
the target's question. The parts of the weights stay views of the file until the model is written. Two parts of anything
else, as in rotary embeddings, become two slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.absent import derived
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.require import is_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, rank, scalar

_MOST_PARTS = 3
Range = tuple[int, int]


def product_of(v: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None] | None:
    """x, weights [K, N] and bias [N] or None of a product with weights."""
    node, bias = v.producer(), None
    if node is not None and node.op_type == "Add":
        bias = next((i for i in node.inputs if constant(i) is not None and rank(i) == 1), None)
        rest = [i for i in node.inputs if i is not bias]
        node = rest[0].producer() if bias is not None and rest[0] is not None else None
    if node is None or node.op_type != "MatMul" or node.domain:
        return None
    x, weight = node.inputs
    if x is None or weight is None or constant(weight) is None or rank(weight) != 2:
        return None
    fits = bias is None or dims(bias) == dims(weight)[1:]  # type: ignore[index]
    return (x, weight, bias) if fits else None


def _only_parts(v: ir.Value) -> bool:
    """Whether nothing needs the packed product whole."""
    return not v.is_graph_output() and all(_is_part(user) for user, _ in v.uses())


def _is_part(node: ir.Node) -> bool:
    if node.op_type in ("Slice", "Split"):
        return True
    selected = node.outputs[0]
    return node.op_type == "Reshape" and all(user.op_type == "Gather" for user, _ in selected.uses())


def _packed(name: str) -> Any:
    def check(m: Match) -> Mismatch | None:
        v = m[name]
        if product_of(v) is None:
            return Mismatch("op-type", "a product with weights", v, v)
        if not _only_parts(v):
            return Mismatch("escapes", "a product that is needed in parts alone", v, v)
        return None

    return check


def _part(op: Builder, packed: ir.Value, columns: Range) -> ir.Value:
    found = product_of(packed)
    assert found is not None, "the rule requires a product with weights"
    x, weight, bias = found
    product = op.MatMul(x, _columns(op, weight, columns))
    return product if bias is None else op.Add(product, _columns(op, bias, columns))


def _columns(op: Builder, v: ir.Value, columns: Range) -> ir.Value:
    tensor = constant(v)
    assert tensor is not None, "the rule requires weights"
    first, end = columns
    shape = ir.Shape([*tensor.shape.numpy()[:-1], end - first])
    part = derived(tensor, lambda array: array[..., first:end], shape)
    return op.lazy_constant(part, f"{v.name}_{first}_{end}")


def _split(parts: int) -> Any:
    def pattern(op: Any, x: Any, sizes: Any) -> Any:
        return tuple(op.Split(x, sizes, axis=attr("axis"), output=i) for i in range(parts))

    return pattern


def _last_axis(m: Match) -> Mismatch | None:
    if m.attribute("axis") in (-1, len(dims(m["x"]) or []) - 1):
        return None
    return Mismatch("attribute", "a split of the last axis", m.attribute("axis"), m.root)


def _split_parts(op: Builder, m: Match) -> Sequence[ir.Value]:
    sizes = constant(m["sizes"])
    assert sizes is not None, "the rule requires constant sizes"
    ends = [0, *accumulate(sizes.numpy().tolist())]
    return [_part(op, m["x"], columns) for columns in zip(ends, ends[1:], strict=False)]


def _slice(op: Any, x: Any, start: Any, end: Any, axes: Any) -> Any:
    return op.Slice(x, start, end, axes)


def _stepped(op: Any, x: Any, start: Any, end: Any, axes: Any) -> Any:
    return op.Slice(x, start, end, axes, 1)


def _sliced_columns(m: Match) -> Mismatch | None:
    found = dims(m["x"])
    if found is None or not isinstance(found[-1], int) or m.scalar("axes") not in (-1, len(found) - 1):
        return Mismatch("constant", "a slice of the last axis", m["axes"], m["axes"])
    first, end = _bounds(m)
    return None if first < end else Mismatch("constant", "a slice that is not empty", m["end"], m["end"])


def _bounds(m: Match) -> Range:
    width = (dims(m["x"]) or [0])[-1]
    assert isinstance(width, int)
    first, end, _ = slice(m.scalar("start"), m.scalar("end")).indices(width)
    return first, end


def _sliced(op: Builder, m: Match) -> ir.Value:
    return _part(op, m["x"], _bounds(m))


def _gather(op: Any, wide: Any, index: Any) -> Any:
    return op.Gather(wide, index, axis=attr("axis"))


def _one_of_parts(m: Match) -> Mismatch | None:
    """The Reshape splits [.., N] into [.., parts, ..], and the index takes one of the parts."""
    index, view, found = m.scalar("index"), m["wide"].producer(), dims(m["wide"])
    if index is None or rank(m["index"]) != 0:
        return Mismatch("constant", "one index", m["index"], m["index"])
    before = dims(view.inputs[0]) if view is not None and view.op_type == "Reshape" else None
    if view is None or before is None or found is None or product_of(view.inputs[0]) is None:  # type: ignore[arg-type]
        return Mismatch("op-type", "a product with weights, reshaped", m["wide"], m["wide"])
    if not _only_parts(view.inputs[0]):  # type: ignore[arg-type]
        return Mismatch("escapes", "a product that is needed in parts alone", m["wide"], m["wide"])
    axis = m.attribute("axis") % len(found)
    named = all(isinstance(d, int) for d in found[axis:])
    if axis == len(before) - 1 and before[:-1] == found[:axis] and None not in before and named:
        return None
    return Mismatch("shape", "the last dimension split into parts", m["wide"], m["wide"])


def _gathered(op: Builder, m: Match) -> ir.Value:
    view, found = m["wide"].producer(), dims(m["wide"])
    assert view is not None and found is not None and view.inputs[0] is not None
    axis, index = m.attribute("axis") % len(found), int(scalar(m["index"]) or 0)
    rest = [d for d in found[axis + 1 :] if isinstance(d, int)]
    packed = (dims(view.inputs[0]) or [])[-1]
    assert isinstance(packed, int) and isinstance(found[axis], int)
    width, parts = packed // found[axis], found[axis]
    part = _part(op, view.inputs[0], (index % parts * width, (index % parts + 1) * width))
    return part if len(rest) == 1 else op.Reshape(part, op.constant([0] * axis + rest, "part_shape", "int64"))


def _as_slices(op: Builder, m: Match) -> Sequence[ir.Value]:
    tensor = constant(m["sizes"])
    assert tensor is not None, "the rule requires constant sizes"
    first, second = tensor.numpy().tolist()
    start, middle, end, axis = (op.constant([i], "bound", "int64") for i in (0, first, first + second, -1))
    return op.Slice(m["x"], start, middle, axis), op.Slice(m["x"], middle, end, axis)


_SLICE = (is_constant("start", "end", "axes"), _sliced_columns, _packed("x"))

RULES = [
    *(
        Rule("product-part", _split(n), _split_parts, (is_constant("sizes"), _last_axis, _packed("x")))
        for n in range(_MOST_PARTS, 1, -1)
    ),
    Rule("product-part", _slice, _sliced, _SLICE),
    Rule("product-part", _stepped, _sliced, _SLICE),
    Rule("product-part", _gather, _gathered, (_one_of_parts,)),
    Rule("halves", _split(2), _as_slices, (is_constant("sizes"), _last_axis)),
]
