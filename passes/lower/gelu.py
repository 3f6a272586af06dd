"""A bias and the GELU behind it become one operator, on targets where that is no slower.

    Gelu(x + bias)                      ->  BiasGelu(x, bias)
    Gelu(x + bias, approximate="tanh")  ->  FastGelu(x, bias)

Source: ONNX Runtime's contrib operators of these names. x [..., D], bias [D].
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.require import is_constant, same_dtype, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels


def _biased(approximate: str) -> Any:
    def pattern(op: Any, x: Any, bias: Any) -> Any:
        return op.Gelu(op.Add(x, bias), approximate=approximate)

    return pattern


def _bias_gelu(op: Builder, m: Match) -> ir.Value:
    return op.BiasGelu(m["x"], m["bias"], domain=MICROSOFT)


def _fast_gelu(op: Builder, m: Match) -> ir.Value:
    return op.FastGelu(m["x"], m["bias"], domain=MICROSOFT)


def rules(kernels: Kernels) -> list[Rule]:
    fits = (is_constant("bias"), shapes(x="... D", bias="D"), same_dtype("x", "bias"))
    return [
        Rule("bias-gelu", _biased("none"), _bias_gelu, (*fits, kernels.runs(MICROSOFT, "BiasGelu", "x"))),
        Rule("fast-gelu", _biased("tanh"), _fast_gelu, (*fits, kernels.runs(MICROSOFT, "FastGelu", "x"))),
    ]
