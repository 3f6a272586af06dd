"""Products with constant weights in 8 bits: signed weights per output channel, activations quantized as they come.

    x [.., K] float ─ DynamicQuantizeLinear (uint8, one scale) ─┐
    W [K, N] float  ─ int8, one scale per column ───────────────┴─ MatMulIntegerToFloat (+ bias [N]) ─ y [.., N]

Signed weights with unsigned activations are what VNNI and AMX multiply; consumers of one activation share its
quantization (equal nodes are merged). Source: Jacob et al. 2018, arXiv:1712.05877; ONNX Runtime's contrib operator
MatMulIntegerToFloat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import dtype, is_constant, not_constant, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels

_SMALLEST = 32  # a product this thin costs more to quantize than to compute
_LARGEST_CODE = 127


def _product(op: Any, x: Any, weight: Any) -> Any:
    return op.MatMul(x, weight)


def _product_and_bias(op: Any, x: Any, weight: Any, bias: Any) -> Any:
    return op.Add(op.MatMul(x, weight), bias)


def _wide_enough(m: Match) -> Mismatch | None:
    tensor = constant(m["weight"])
    assert tensor is not None, "the rule requires a constant"
    if min(tensor.shape.numpy()) >= _SMALLEST:
        return None
    return Mismatch("cost", f"a weight of at least {_SMALLEST} x {_SMALLEST}", m["weight"], m["weight"])


def _quantized(op: Any, m: Match) -> ir.Value:
    codes, scales = quantize_columns(constant(m["weight"]))
    name = str(m["weight"].name)
    x, x_scale, x_zero = op.DynamicQuantizeLinear(m["x"], outputs=3)
    weight, weight_scale = op.constant(codes, f"{name}_int8"), op.constant(scales, f"{name}_scale")
    return op.MatMulIntegerToFloat(
        x, weight, x_scale, weight_scale, x_zero, None, m.get("bias"), domain=MICROSOFT
    )


def quantize_columns(tensor: ir.TensorProtocol | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Symmetric codes int8 [K, N] in -127..127 and scales float32 [N], so that codes * scales is nearest to W."""
    assert tensor is not None
    weight = tensor.numpy()
    scales = np.maximum(np.abs(weight).max(axis=0) / _LARGEST_CODE, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


def rules(kernels: Kernels) -> list[list[Rule]]:
    """Rule sets in the order in which to apply them: a product takes its bias along before it is taken alone."""
    where = (
        is_constant("weight", "bias"),
        not_constant("x"),
        dtype("x", ir.DataType.FLOAT),
        shapes(weight="K N", bias="N"),
        _wide_enough,
        kernels.runs(MICROSOFT, "MatMulIntegerToFloat", "x"),
    )
    with_bias = Rule("int8-product", _product_and_bias, _quantized, where)
    alone = Rule("int8-product", _product, _quantized, where, anchor="MatMul")
    return [[with_bias], [alone]]
