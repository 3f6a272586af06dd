"""Weights: transposed, in a Gemm, packed side by side or apart, cut by columns."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import is_constant
from onnxsmith.passes.engine.values import constant, dims
from tests.fuzz.mutation import Mutation, Respelling, is_float


def _data(v: ir.Value) -> NDArray[Any]:
    tensor = constant(v)
    assert tensor is not None, "the mutation requires weights"
    return tensor.numpy()


def _weights(m: Match) -> Mismatch | None:
    """Every value that is named w or b is a matrix or a vector of weights, and x is computed [.., .., K]."""
    for name, v in m.values.items():
        if name[0] == "x":
            continue
        tensor = constant(v)
        if tensor is None or tensor.shape.rank() != (2 if name[0] == "w" else 1):
            return Mismatch("constant", "weights", v, v)
    return None if len(dims(m["x"]) or []) == 3 else Mismatch("rank", "x of three dimensions", m["x"], m["x"])


def _transposed(op: Builder, m: Match, rng: Random) -> ir.Value:
    return op.MatMul(m["x"], op.Transpose(op.constant(_data(m["w"]).T.copy(), "turned"), perm=[1, 0]))


def _gemm(op: Builder, m: Match, rng: Random) -> ir.Value:
    rows, columns = _data(m["w"]).shape
    flat = op.Reshape(m["x"], op.constant([-1, rows], "flat", np.int64))
    turned = rng.random() < 0.5
    weight = op.constant(_data(m["w"]).T.copy(), "turned") if turned else m["w"]
    product = op.Gemm(flat, weight, m["b"], transB=1 if turned else None)
    wide = op.Concat(op.Shape(m["x"], start=0, end=2), op.constant([columns], "columns", np.int64), axis=0)
    return op.Reshape(product, wide)


def _linear(op: Any, x: Any, w: Any, b: Any) -> Any:
    return op.Add(op.MatMul(x, w), b)


def _three(op: Any, x: Any, w0: Any, w1: Any, w2: Any) -> Any:
    return op.MatMul(x, w0), op.MatMul(x, w1), op.MatMul(x, w2)


def _two(op: Any, x: Any, w0: Any, w1: Any) -> Any:
    return op.MatMul(x, w0), op.MatMul(x, w1)


def _packed(op: Builder, m: Match, rng: Random) -> Sequence[ir.Value]:
    weights = [_data(m[name]) for name in sorted(m.values) if name[0] == "w"]
    product = op.MatMul(m["x"], op.constant(np.concatenate(weights, 1), "packed"))
    widths = [w.shape[1] for w in weights]
    return _parts(op, product, widths, rng.choice(("split", "slice", "gather")))


def _split_product(op: Any, x: Any, w: Any, b: Any, widths: Any) -> Any:
    packed = op.Add(op.MatMul(x, w), b)
    return tuple(op.Split(packed, widths, axis=2, output=i) for i in range(3))


def _unpacked(op: Builder, m: Match, rng: Random) -> Sequence[ir.Value]:
    bounds = np.cumsum(_data(m["widths"]))[:-1]
    weights, biases = np.split(_data(m["w"]), bounds, axis=1), np.split(_data(m["b"]), bounds)
    products = [op.MatMul(m["x"], op.constant(w, "part")) for w in weights]
    return [op.Add(product, op.constant(b, "part_bias")) for product, b in zip(products, biases, strict=True)]


def _several_columns(m: Match) -> Mismatch | None:
    width = _data(m["w"]).shape[1]
    return None if width > 1 else Mismatch("shape", "two columns or more", width, m["w"])


def _columns_apart(op: Builder, m: Match, rng: Random) -> ir.Value:
    """Two or three products, each with some of the columns."""
    weight = _data(m["w"])
    width = weight.shape[1]
    bounds = sorted(rng.sample(range(1, width), min(rng.randint(1, 2), width - 1)))
    weights = [op.constant(w.copy(), "columns") for w in np.split(weight, bounds, axis=1)]
    products = [op.MatMul(m["x"], w) for w in weights]
    if m.get("b") is not None:
        biases = [op.constant(b.copy(), "column_bias") for b in np.split(_data(m["b"]), bounds)]
        products = [op.Add(product, b) for product, b in zip(products, biases, strict=True)]
    return op.Concat(*products, axis=-1)


def _parts(op: Builder, packed: ir.Value, widths: list[int], how: str) -> Sequence[ir.Value]:
    if how == "split":
        return op.several("Split", len(widths), packed, op.constant(widths, "widths", np.int64), axis=2)
    if how == "gather" and len(set(widths)) == 1:
        wide = op.Reshape(packed, op.constant([0, 0, len(widths), widths[0]], "wide", np.int64))
        return [op.Gather(wide, op.constant(i, "part", np.int64), axis=2) for i in range(len(widths))]
    ends = np.cumsum([0, *widths])
    bounds = [op.constant([e], "bound", np.int64) for e in ends]
    axis = op.constant([2], "axis", np.int64)
    return [op.Slice(packed, start, end, axis) for start, end in zip(bounds, bounds[1:], strict=False)]


def _matmul(op: Any, x: Any, w: Any) -> Any:
    return op.MatMul(x, w)


MUTATIONS: list[Mutation] = [
    Respelling("transposed-weight", _matmul, _transposed, (_weights, is_float)),
    Respelling("columns-apart", _matmul, _columns_apart, (_weights, _several_columns, is_float)),
    Respelling("biased-columns-apart", _linear, _columns_apart, (_weights, _several_columns, is_float)),
    Respelling("gemm", _linear, _gemm, (_weights, is_float)),
    Respelling("three-packed", _three, _packed, (_weights, is_float)),
    Respelling("unpacked", _split_product, _unpacked, (is_constant("w", "b", "widths"), is_float)),
    Respelling("two-packed", _two, _packed, (_weights, is_float)),
]
