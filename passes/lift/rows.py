"""Products with weights on tensors of any rank: Gemm as MatMul and Add, and views of rows moved behind them.

    Gemm(reshape(x, [B*S, K]), W, b)     reshape(x · W + b, [B*S, N])

PyTorch's addmm flattens [B, S, K] into rows before each product and unflattens after it. Behind the product, the two
views meet and vanish. Source: ONNX operator specification, Gemm-13.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.absent import derived
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.require import is_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, rank
from onnxsmith.passes.shapes import product, sizes


def _gemm(op: Any, x: Any, w: Any, b: Any) -> Any:
    return op.Gemm(x, w, b, transA=0, transB=attr("turned"), alpha=1.0, beta=1.0)


def _gemm_without_bias(op: Any, x: Any, w: Any) -> Any:
    return op.Gemm(x, w, transA=0, transB=attr("turned"), alpha=1.0)


def _product(op: Builder, m: Match) -> ir.Value:
    weight = op.Transpose(m["w"], perm=[1, 0]) if m.attribute("turned") else m["w"]
    product = op.MatMul(m["x"], weight)
    return product if m.get("b") is None else op.Add(product, m["b"])


def _turned_weight(op: Any, x: Any, w: Any) -> Any:
    return op.MatMul(x, op.Transpose(w, perm=[1, 0]))


def _unshared(m: Match) -> Mismatch | None:
    """A head that is tied to its embedding table must not become a second table."""
    others = [user for user, _ in m["w"].uses() if user.op_type not in ("Transpose", "Gemm")]
    return Mismatch("escapes", "weights that only products read", m["w"], others[0]) if others else None


def _straight_weight(op: Builder, m: Match) -> ir.Value:
    """The weights stay on disk until the model is written."""
    tensor = constant(m["w"])
    assert tensor is not None, "the rule requires weights"
    rows, columns = tensor.shape.numpy()
    turned = derived(tensor, np.transpose, ir.Shape([columns, rows]))
    return op.MatMul(m["x"], op.lazy_constant(turned, f"{m['w'].name}_turned"))


def _rows_times(op: Any, rows: Any, w: Any) -> Any:
    return op.MatMul(rows, w)


def _product_in_rows(op: Builder, m: Match) -> ir.Value:
    kept = _leading(m)
    assert kept is not None, "the rule requires rows"
    x, (depth, _) = _source(m), dims(m["w"]) or []
    if kept < (rank(x) or 0) - 1:
        x = op.Reshape(x, op.constant([0] * kept + [depth], "joined", "int64"))
    return _in_rows(op, op.MatMul(x, m["w"]), m["w"])


def _rows_plus(op: Any, rows: Any, b: Any) -> Any:
    return op.Add(rows, b)


def _source(m: Match) -> ir.Value | None:
    """What the rows are a Reshape of. Several products may share them: they are not part of the match."""
    node = m["rows"].producer()
    return node.inputs[0] if node is not None and node.op_type == "Reshape" else None


def _sum_in_rows(op: Builder, m: Match) -> ir.Value:
    return _in_rows(op, op.Add(_source(m), m["b"]), m["b"])


def _in_rows(op: Builder, x: ir.Value, like: ir.Value) -> ir.Value:
    width = (dims(like) or [])[-1]
    assert isinstance(width, int), "the rule requires weights"
    return op.Reshape(x, op.constant([-1, width], "rows", "int64"))


def _leading(m: Match) -> int | None:
    """How many leading dimensions of x, two at least, the Reshape joins into the rows of a matrix."""
    before, after = sizes(_source(m)), sizes(m["rows"])
    if before is None or after is None or len(after) != 2:
        return None
    return next((i for i in range(len(before) - 1, 1, -1) if product(before[i:]) == after[1]), None)


def _flattened(m: Match) -> Mismatch | None:
    if _leading(m) is None:
        return Mismatch("shape", "leading dimensions flattened into the rows of a matrix", m["rows"], m["rows"])
    return _matrix(m)


def _flattened_sum(m: Match) -> Mismatch | None:
    """As above, and the last dimension stays as it is, as long as the bias."""
    found = dims(_source(m))
    if _leading(m) is None or found is None or _leading(m) != len(found) - 1 or dims(m["b"]) != found[-1:]:
        return Mismatch("shape", "leading dimensions flattened into the rows of a matrix", m["rows"], m["rows"])
    return None


def _matrix(m: Match) -> Mismatch | None:
    return None if rank(m["w"]) == 2 else Mismatch("rank", "weights of two dimensions", m["w"], m["w"])


RULES = [
    Rule("weighted-product", _gemm, _product),
    Rule("weighted-product", _gemm_without_bias, _product),
    Rule("weighted-product", _turned_weight, _straight_weight, (is_constant("w"), _matrix, _unshared)),
    Rule("rows-view", _rows_times, _product_in_rows, (is_constant("w"), _flattened)),
    Rule("rows-view", _rows_plus, _sum_in_rows, (is_constant("b"), _flattened_sum)),
]
