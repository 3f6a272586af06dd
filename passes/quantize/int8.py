"""Products with constant weights in 8 bits: signed weights per output channel, activations quantized as they come.

    x [.., K] float ─ (· 1/s) ─ DynamicQuantizeLinear (uint8, one scale) ─┐
    W [K, N] float  ─ (· s) ─── int8, one scale per column ───────────────┴─ MatMulIntegerToFloat (+ bias) ─ y [.., N]

With a scale fixed by calibration, QuantizeLinear takes the place of DynamicQuantizeLinear. The kernel has one scale for
all rows; where they differ in size, a few channels' excess has channels of its own (see excess.py), or each row is
divided by its largest magnitude before and multiplied by it behind. Signed weights with unsigned activations are what
VNNI and AMX multiply; consumers of one activation share its quantization (equal nodes are merged). The factors s (see
smooth.py) stand only where a few channels would otherwise take the whole range. Sources: Jacob et al. 2018,
arXiv:1712.05877; ONNX Runtime's operator MatMulIntegerToFloat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels
from onnxsmith.passes.quantize import products
from onnxsmith.passes.quantize.activation import Activation
from onnxsmith.passes.quantize.rounding import largest

Array = np.ndarray[Any, Any]
_IN_A_ROW = Activation(span=(-1.0, 1.0))  # of what is divided by its largest magnitude
LARGEST_CODE, LARGEST_7_BIT_CODE = 127, 64  # 2 x 255 x 64 fits the 16 bits that machines without VNNI add in


def _quantized_with(activations: Mapping[str, Activation], largest_code: int) -> Any:
    def rewrite(op: Builder, m: Match) -> ir.Value:
        x, matrix, name = m["x"], products.matrix(m), str(m["weight"].name)
        known = activations.get(str(x.name), Activation())
        if (factor := known.factor) is not None:
            x, matrix = op.Mul(x, op.constant(1 / factor, f"{x.name}_smooth")), matrix * factor[:, None]
        if known.excess is not None:
            matrix = known.excess.of_weights(matrix)
        codes, scales = quantize_columns(matrix, largest_code)
        columns, column_scales = op.constant(codes, f"{name}_int8"), op.constant(scales, f"{name}_scale")

        def product(data: Sequence[ir.Value], bias: ir.Value | None) -> ir.Value:
            inputs = (data[0], columns, data[1], column_scales, data[2], None, bias)
            return op.MatMulIntegerToFloat(*inputs, domain=MICROSOFT)

        bias = products.bias(op, m)
        if not known.by_row:
            return product(_codes_of(op, x, known), bias)
        sizes = largest(op, x)
        y = op.Mul(product(_codes_of(op, op.Div(x, sizes), _IN_A_ROW), None), sizes)
        return y if bias is None else op.Add(y, bias)

    return rewrite


def _codes_of(op: Builder, x: ir.Value, known: Activation) -> Sequence[ir.Value]:
    """Codes uint8, scale and zero point of an activation: fixed beforehand, or from its own range."""
    if (grid := known.grid()) is None:
        return op.several("DynamicQuantizeLinear", 3, x)
    scale, zero = op.constant(grid.scale, f"{x.name}_scale"), op.constant(grid.zero, f"{x.name}_zero")
    codes = op.QuantizeLinear(x, scale, zero)
    if known.excess is not None:
        codes = op.Concat(codes, op.QuantizeLinear(known.excess.of(op, x), scale, zero), axis=-1)
    return codes, scale, zero


def quantize_columns(weight: Array, largest_code: int = LARGEST_CODE) -> tuple[Array, Array]:
    """Symmetric codes int8 [K, N] up to ``largest_code`` and scales float32 [N]: codes * scales is nearest to W."""
    scales = np.maximum(np.abs(weight).max(axis=0) / largest_code, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


def rules(
    kernels: Kernels, activations: Mapping[str, Activation], largest_code: int = LARGEST_CODE
) -> tuple[Rule, ...]:
    """Both forms of the product. ``activations`` by name are what calibration found; others are quantized as is."""
    runs = kernels.runs(MICROSOFT, "MatMulIntegerToFloat", "x")
    return products.rules("int8-product", _quantized_with(activations, largest_code), runs)
