"""Residual sums and the norms behind them become one operator, on targets where that is no slower.

    layer norm  LayerNormalization(x + bias + skip)  ->  SkipLayerNormalization(x, skip, scale, shift, bias)
    RMS norm    RMSNormalization(x + bias + skip)    ->  SkipSimplifiedLayerNormalization(x, skip, scale, bias)

The operators also give the sum itself, which pre-norm models go on with. Source: ONNX Runtime's contrib operators of
these names. x and skip [B, S, D], the rest [D].
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.require import is_constant, same_dtype, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels

_SUM = 3  # the output that gives x + bias + skip; the two before it are for training
_LAYER, _RMS = "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"


def _total(op: Any, x: Any, skip: Any, bias: Any, biased: bool) -> Any:
    return op.Add(op.Add(x, bias), skip) if biased else op.Add(x, skip)


def _layer(shifted: bool, biased: bool, kept: bool) -> Any:
    def pattern(op: Any, x: Any, skip: Any, bias: Any, scale: Any, shift: Any) -> Any:
        total = _total(op, x, skip, bias, biased)
        inputs = (total, scale, shift) if shifted else (total, scale)
        norm = op.LayerNormalization(*inputs, axis=-1, epsilon=attr("epsilon"), stash_type=1)
        return (norm, total) if kept else norm

    return pattern


def _rms(biased: bool, kept: bool) -> Any:
    def pattern(op: Any, x: Any, skip: Any, bias: Any, scale: Any) -> Any:
        total = _total(op, x, skip, bias, biased)
        norm = op.RMSNormalization(total, scale, axis=-1, epsilon=attr("epsilon"), stash_type=1)
        return (norm, total) if kept else norm

    return pattern


def _skip_layer(op: Builder, m: Match) -> list[ir.Value]:
    return _joined(op, m, _LAYER, m["x"], m["skip"], m["scale"], m.get("shift"), m.get("bias"))


def _skip_rms(op: Builder, m: Match) -> list[ir.Value]:
    return _joined(op, m, _RMS, m["x"], m["skip"], m["scale"], m.get("bias"))


def _joined(op: Builder, m: Match, op_type: str, *inputs: ir.Value | None) -> list[ir.Value]:
    kept = len(m.outputs) > 1
    count = _SUM + 1 if kept else 1
    made = op.several(op_type, count, *inputs, domain=MICROSOFT, epsilon=m.attribute("epsilon"))
    for absent in made[1:_SUM]:
        absent.name = ""
    return [made[0], made[_SUM]] if kept else [made[0]]


def rules(kernels: Kernels) -> list[Rule]:
    """With a bias before without one, which would leave the bias outside."""
    fits = (
        shapes(x="B S D", skip="B S D", bias="D", scale="D", shift="D"),
        same_dtype("x", "skip", "bias", "scale", "shift"),
        is_constant("bias"),
    )
    layer, rms = (*fits, kernels.runs(MICROSOFT, _LAYER, "x")), (*fits, kernels.runs(MICROSOFT, _RMS, "x"))
    found = []
    for biased in (True, False):
        for kept in (False, True):
            found += [Rule("skip-layer-norm", _layer(s, biased, kept), _skip_layer, layer) for s in (True, False)]
            found.append(Rule("skip-rms-norm", _rms(biased, kept), _skip_rms, rms))
    return found
