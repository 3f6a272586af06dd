"""Gated sigmoids become QuickGelu: x * sigmoid(alpha * x), which is SiLU for alpha = 1.

Sources: Hendrycks and Gimpel 2016 (alpha = 1.702); Elfwing et al. 2017, arXiv:1702.03118 (alpha = 1); ONNX Runtime's
contrib operator QuickGelu.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.require import scalar_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels


def _sigmoid_gelu(op: Any, x: Any, alpha: Any) -> Any:
    return op.Mul(x, op.Sigmoid(op.Mul(x, alpha)))


def _silu(op: Any, x: Any) -> Any:
    return op.Mul(x, op.Sigmoid(x))


def _quick(op: Builder, m: Match) -> ir.Value:
    alpha = m.scalar("alpha") if m.get("alpha") is not None else 1.0
    return op.QuickGelu(m["x"], alpha=alpha, domain=MICROSOFT)


def rules(kernels: Kernels) -> list[Rule]:
    runs = kernels.runs(MICROSOFT, "QuickGelu", "x")
    return [
        Rule("silu", _silu, _quick, (runs,), anchor="Sigmoid"),
        Rule("quick-gelu", _sigmoid_gelu, _quick, (scalar_constant("alpha"), runs), anchor="Sigmoid"),
    ]
