"""Products of two activations whose leading dimensions were joined for them.

    reshape(a [B*H, S, D] · b [B*H, D, T], [B, H, S, T])     reshape(a, [B, H, S, D]) · reshape(b, [B, H, D, T])

PyTorch's bmm knows three dimensions only, so that heads are joined with the batch before it and parted after it; MatMul
takes any number. Parted before the product, the views meet those that joined them, and vanish. A scale and biases
[B*H|1, S|1, T|1] between the product and the view (baddbmm, position biases) are parted with it. Source: ONNX operator
specification, MatMul-13.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, rank, scalar
from onnxsmith.passes.shapes import ONE, Size, evaluate, product, sizes

_STEPS = 4  # scales and biases between the product and the view


def _joined(op: Any, x: Any, to: Any) -> Any:
    return op.Reshape(x, to)


def _above(v: ir.Value, steps: int = _STEPS) -> list[ir.Node] | None:
    """The nodes from a value up to a product of two activations of three dimensions, which nothing else reads."""
    node = v.producer()
    if node is None or node.domain or len(v.uses()) != 1 or v.is_graph_output():
        return None
    if node.op_type == "MatMul":
        return [node] if all(rank(i) == 3 and constant(i) is None for i in node.inputs) else None
    found = sizes(v)
    if found is None or not steps or node.op_type not in ("Add", "Mul", "Div"):
        return None
    for i, other in (node.inputs, node.inputs[::-1]):
        if i is None or other is None or not _goes_along(node, other, found) or sizes(i) != found:
            continue
        if (rest := _above(i, steps - 1)) is not None:
            return [node, *rest]
    return None


def _goes_along(node: ir.Node, other: ir.Value, whole: list[Size]) -> bool:
    """A scalar factor, or a bias whose first of three dimensions is that of the whole, or one for all."""
    if node.op_type != "Add":
        return scalar(other) is not None and (node.op_type == "Mul" or other is node.inputs[1])
    found = sizes(other)
    return found is not None and (len(found) < 3 or (len(found) == 3 and found[0] in (ONE, whole[0])))


def _parts_batch(m: Match) -> Mismatch | None:
    """The Reshape parts the first of three dimensions and keeps the other two."""
    nodes = _above(m["x"])
    if nodes is None:
        return Mismatch("op-type", "a product of two activations of three dimensions", m["x"], m["x"])
    a, b = (sizes(i) for i in nodes[-1].inputs)
    result, to = sizes(m.outputs[0]), evaluate(m["to"])
    assert a is not None and b is not None, "the product has three dimensions"
    if result is None or len(result) < 4:
        return Mismatch("rank", "a result of more than three dimensions", m.root, m.root)
    if to is None or any(t.known == 0 for t in to[:-2]):
        return Mismatch("shape", "a target that can be told and copies nothing", m["to"], m["to"])
    if product(result[:-2]) == a[0] == b[0] and result[-2:] == [a[1], b[2]]:
        return None
    return Mismatch("shape", "the first dimension alone in parts", m["to"], m["to"])


def _parted(op: Builder, m: Match) -> ir.Value:
    nodes = _above(m["x"])
    assert nodes is not None, "the rule requires a product"
    start, end, axis = (op.constant([i], "bound", "int64") for i in (0, -2, 0))
    leading = op.Slice(m["to"], start, end, axis)
    x = op.MatMul(*(_view(op, v, leading) for v in nodes[-1].inputs))
    for node, inner in zip(nodes[-2::-1], nodes[:0:-1], strict=True):
        inputs = [x if v is inner.outputs[0] else _beside(op, v, leading) for v in node.inputs]
        x = getattr(op, node.op_type)(*inputs)
    return x


def _beside(op: Builder, v: ir.Value | None, leading: ir.Value) -> ir.Value | None:
    """What has fewer dimensions, or one for all heads, broadcasts as it is."""
    found = sizes(v)
    return v if found is None or len(found) < 3 or found[0] == ONE else _view(op, v, leading)


def _view(op: Builder, v: ir.Value | None, leading: ir.Value) -> ir.Value:
    return op.Reshape(v, op.Concat(leading, op.Shape(v, start=1, end=3), axis=0))


RULES = [Rule("batched-product", _joined, _parted, (_parts_batch,))]
