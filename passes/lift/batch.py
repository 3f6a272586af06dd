"""Products of two activations whose leading dimensions were joined for them.

    reshape(a [B*H, S, D] · b [B*H, D, T], [B, H, S, T])     reshape(a, [B, H, S, D]) · reshape(b, [B, H, D, T])

PyTorch's bmm knows three dimensions only, so that heads are joined with the batch before it and parted after it; MatMul
takes any number. Parted before the product, the views meet those that joined them, and vanish. Source: ONNX operator
specification, MatMul-13.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import not_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.shapes import evaluate, product, sizes


def _joined(op: Any, a: Any, b: Any, to: Any) -> Any:
    return op.Reshape(op.MatMul(a, b), to)


def _parts_batch(m: Match) -> Mismatch | None:
    """The Reshape parts the first of three dimensions and keeps the other two."""
    a, b, result, to = sizes(m["a"]), sizes(m["b"]), sizes(m.outputs[0]), evaluate(m["to"])
    if a is None or b is None or result is None or len(a) != 3 or len(b) != 3 or len(result) < 4:
        return Mismatch("rank", "factors of three dimensions and a result of more", m.root, m.root)
    if to is None or any(t.known == 0 for t in to[:-2]):
        return Mismatch("shape", "a target that can be told and copies nothing", m["to"], m["to"])
    if product(result[:-2]) == a[0] == b[0] and result[-2:] == [a[1], b[2]]:
        return None
    return Mismatch("shape", "the first dimension alone in parts", m["to"], m["to"])


def _parted(op: Builder, m: Match) -> ir.Value:
    start, end, axis = (op.constant([i], "bound", "int64") for i in (0, -2, 0))
    leading = op.Slice(m["to"], start, end, axis)
    factors = [op.Reshape(v, op.Concat(leading, op.Shape(v, start=1, end=3), axis=0)) for v in (m["a"], m["b"])]
    return op.MatMul(*factors)


RULES = [Rule("batched-product", _joined, _parted, (not_constant("a", "b"), _parts_batch))]
