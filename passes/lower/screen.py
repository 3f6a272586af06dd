"""The largest of many products with one vector, found by screening: all of them in integers, the best few in full.

    h [B, 1, D] ── codes of 14 bits ── MatMulIntegerToFloat ── what each product is at most
                                                                 │ the CANDIDATES highest bounds
    table [V, D] ── Gather ── their products in float32 ── the best: sure where it lies above every other bound

A product w · h and the one of rounded vectors w' · h' differ by w · (h - h') + (w - w') · h', which is at most
|w| |h - h'| + |w - w'| |h'| (Cauchy and Schwarz): the norms of w are known beforehand, those of h cost nothing. So the
answer may be unsure, and is never wrong. The vector is rounded to a high and a low code: two rows, for which the
product reads the table's codes once, a quarter of its bytes. Sums of two products of codes up to 127 fit the 16 bits
that processors without VNNI add in. Bounds in the search of a largest product: Teflioudi et al. 2015 (LEMP),
doi:10.1145/2723372.2747647.

Shapes: B batch, D features, V vocabulary, K candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.lower.kernels import MICROSOFT
from onnxsmith.passes.quantize.int8 import quantize_columns
from onnxsmith.passes.quantize.rounding import rounded

Array = np.ndarray[Any, Any]
CANDIDATES = 64  # SmolLM2's bounds leave at most 28 of its 49152 tokens in the race (322 places in English text)
_CODE = 63  # the largest of high codes, and of low ones
_BASE = 2 * _CODE + 1  # low codes in a high one
_ZERO = 64  # the code of zero, as kernels take uint8
_EPSILON = float(np.finfo(np.float32).eps)
_OTHERS = 64  # roundings besides those of a sum of D


def screened(op: Builder, h: ir.Value, table: ir.Value, rows: Array, bias: Array | None) -> tuple[ir.Value, ir.Value]:
    """The best row of ``table`` for each h [B, 1, D], int64 [B, 1], and whether all of them are sure, bool [].

    ``rows`` [V, D] are the table's numbers, float32, more than CANDIDATES; ``bias``, float32 [V], is added to all
    products.
    """
    upper = _bounds(op, h, rows)
    if bias is not None:
        upper = op.Add(upper, op.constant(bias + 2 * _EPSILON * np.abs(bias), "bias_bound", np.float32))
    count = op.constant([CANDIDATES + 1], "candidates", np.int64)
    highest, places = (op.Squeeze(v, _axis(op, 1)) for v in op.several("TopK", 2, upper, count, axis=-1))
    places, limit = _without_last(op, places)[0], _without_last(op, highest)[1]
    upright = op.Transpose(h, perm=[0, 2, 1])
    exact = op.Squeeze(op.MatMul(op.Gather(table, places, axis=0), upright), _axis(op, 2))  # [B, K]
    if bias is not None:
        exact = op.Add(exact, op.Gather(op.constant(bias, "bias"), places, axis=0))
    best = op.GatherElements(places, op.ArgMax(exact, axis=1, keepdims=1), axis=1)
    margins = op.Sub(op.ReduceMax(exact, _axis(op, 1), keepdims=1), limit)
    return best, op.Greater(op.ReduceMin(margins, keepdims=0), op.constant(0, "zero", np.float32))


def _bounds(op: Builder, h: ir.Value, rows: Array) -> ir.Value:
    """What each product with h is at most, [B, 1, V]."""
    whole, step = rounded(op, h, _CODE * _BASE)
    norm, off = _norm(op, h), _norm(op, op.Sub(h, op.Mul(whole, step)))
    codes, scales = quantize_columns(rows.T)
    product = op.MatMulIntegerToFloat(
        _codes(op, whole),
        op.constant(codes, "screen"),
        op.constant(1, "one", np.float32),
        op.constant(scales, "screen_scale"),
        op.constant(_ZERO, "screen_zero", np.uint8),
        domain=MICROSOFT,
    )
    about = op.MatMul(op.Mul(step, op.constant([[_BASE, 1]], "places", np.float32)), product)
    slack = op.constant((rows.shape[1] + _OTHERS) * _EPSILON, "slack", np.float32)
    parts = op.Concat(op.Add(off, op.Mul(norm, slack)), op.Add(norm, off), axis=-1)  # [B, 1, 2]
    return op.Add(about, op.MatMul(parts, op.constant(_norms(rows, codes, scales), "screen_norms")))


def _codes(op: Builder, whole: ir.Value) -> ir.Value:
    """High and low codes, uint8 [B, 2, D] around _ZERO."""
    base = op.constant(_BASE, "base", np.float32)
    high = op.Round(op.Div(whole, base))
    both = op.Concat(high, op.Sub(whole, op.Mul(high, base)), axis=1)
    return op.Cast(op.Add(both, op.constant(_ZERO, "middle", np.float32)), to=ir.DataType.UINT8)


def _norms(rows: Array, codes: Array, scales: Array) -> Array:
    """Of each row and of what rounding takes off it, float32 [2, V], rounded up."""
    lost = codes.T * scales[:, None] - rows
    squares = [np.einsum("vd,vd->v", x, x, dtype=np.float64) for x in (rows, lost)]
    found: Array = (np.sqrt(squares) * (1 + 4 * _EPSILON)).astype(np.float32)
    return found


def _without_last(op: Builder, x: ir.Value) -> list[ir.Value]:
    """x [B, K + 1] as [B, K] and [B, 1]"""
    return list(op.several("Split", 2, x, op.constant([CANDIDATES, 1], "parts", np.int64), axis=1))


def _norm(op: Builder, x: ir.Value) -> ir.Value:
    return op.ReduceL2(x, _axis(op, -1), keepdims=1)


def _axis(op: Builder, axis: int) -> ir.Value:
    return op.constant([axis], "axis", np.int64)
