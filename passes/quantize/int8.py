"""Products with constant weights in 8 bits: signed weights per output channel, activations quantized as they come.

    x [.., K] float ─ (· 1/s) ─ DynamicQuantizeLinear (uint8, one scale) ─┐
    W [K, N] float  ─ (· s) ─── int8, one scale per column ───────────────┴─ MatMulIntegerToFloat (+ bias) ─ y [.., N]

Signed weights with unsigned activations are what VNNI and AMX multiply; consumers of one activation share its
quantization (equal nodes are merged). The factors s (see smooth.py) stand only where a few channels would otherwise
take the whole range. Sources: Jacob et al. 2018, arXiv:1712.05877; ONNX Runtime's operator MatMulIntegerToFloat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import either
from onnxsmith.passes.engine.require import dtype, is_constant, not_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, rank
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels

Array = np.ndarray[Any, Any]
_SMALLEST = 32  # a product this thin costs more to quantize than to compute
_LARGEST_CODE = 127


def _product(op: Any, x: Any, weight: Any) -> Any:
    """A head that is tied to its embedding table reads it through a Transpose."""
    return op.MatMul(x, either("layout", straight=weight, turned=op.Transpose(weight, perm=[1, 0])))


def _product_and_bias(op: Any, x: Any, weight: Any, bias: Any) -> Any:
    return op.Add(_product(op, x, weight), bias)


def _wide_enough(m: Match) -> Mismatch | None:
    tensor = constant(m["weight"])
    assert tensor is not None, "the rule requires a constant"
    if min(tensor.shape.numpy()) >= _SMALLEST:
        return None
    return Mismatch("cost", f"a weight of at least {_SMALLEST} x {_SMALLEST}", m["weight"], m["weight"])


def _bias_of_columns(m: Match) -> Mismatch | None:
    """The weights are a matrix, and the kernel takes a bias with one number for each of its N columns."""
    shape, bias = dims(m["weight"]), m.get("bias")
    if shape is None or len(shape) != 2:
        return Mismatch("rank", "weights of two dimensions", m["weight"], m["weight"])
    if bias is None or dims(bias) == [shape[0 if m.tag("layout") == "turned" else 1]]:
        return None
    return Mismatch("shape", "one bias for each column", bias, bias)


def _without_bias(m: Match) -> Mismatch | None:
    """A product that only a bias follows is taken together with it."""
    if len(m.outputs[0].uses()) > 1 or m.outputs[0].is_graph_output():
        return None
    for user, i in m.outputs[0].uses():
        if user.op_type == "Add" and rank(user.inputs[1 - i]) == 1 and constant(user.inputs[1 - i]) is not None:
            return Mismatch("op-type", "a product without a bias", user.op_type, user)
    return None


def _quantized_with(factors: Mapping[str, Array]) -> Any:
    def rewrite(op: Builder, m: Match) -> ir.Value:
        x, weight, name = m["x"], constant(m["weight"]), str(m["weight"].name)
        assert weight is not None, "the rule requires a constant"
        matrix, factor = weight.numpy(), factors.get(str(x.name))
        matrix = matrix.T if m.tag("layout") == "turned" else matrix
        if factor is not None:
            x, matrix = op.Mul(x, op.constant(1 / factor, f"{x.name}_smooth")), matrix * factor[:, None]
        codes, scales = quantize_columns(matrix)
        data, data_scale, data_zero = op.several("DynamicQuantizeLinear", 3, x)
        columns, column_scales = op.constant(codes, f"{name}_int8"), op.constant(scales, f"{name}_scale")
        inputs = (data, columns, data_scale, column_scales, data_zero, None, m.get("bias"))
        return op.MatMulIntegerToFloat(*inputs, domain=MICROSOFT)

    return rewrite


def quantize_columns(weight: Array) -> tuple[Array, Array]:
    """Symmetric codes int8 [K, N] in -127..127 and scales float32 [N], so that codes * scales is nearest to W."""
    scales = np.maximum(np.abs(weight).max(axis=0) / _LARGEST_CODE, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


def rules(kernels: Kernels, factors: Mapping[str, Array]) -> tuple[Rule, ...]:
    """Both forms of the product. ``factors`` [K] by activation name says which channels to smooth, by how much."""
    where = (
        is_constant("weight", "bias"),
        not_constant("x"),
        dtype("x", ir.DataType.FLOAT),
        _bias_of_columns,
        _wide_enough,
        kernels.runs(MICROSOFT, "MatMulIntegerToFloat", "x"),
    )
    rewrite = _quantized_with(factors)
    return (
        Rule("int8-product", _product_and_bias, rewrite, where, anchor="MatMul"),
        Rule("int8-product", _product, rewrite, (*where, _without_bias), anchor="MatMul"),
    )
