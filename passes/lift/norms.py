"""Normalisations over the last axis become LayerNormalization (opset 17) or RMSNormalization (opset 23).

    layer norm  (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * scale + bias
    RMS norm    x / sqrt(mean(x^2) + eps) * scale

Sources: Ba et al. 2016, arXiv:1607.06450; Zhang and Sennrich 2019, arXiv:1910.07467; ONNX operator specification.
The core is lifted with a scale of ones; the product and the sum that follow it are then taken in one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr, either
from onnxsmith.passes.engine.require import dtype, same_dtype, scalar_constant, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, rank, readable

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _deviation(op: Any, variance: Any, eps: Any) -> Any:
    guarded = op.Add(variance, eps)
    return either("root", sqrt=op.Sqrt(guarded), power=op.Pow(guarded, 0.5))


def _square(op: Any, x: Any) -> Any:
    return either("square", mul=op.Mul(x, x), pow=op.Pow(x, 2.0))


def _centered(op: Any, x: Any, axes: Any) -> Any:
    return op.Sub(x, op.ReduceMean(x, axes, keepdims=1))


def _layer_divided(op: Any, x: Any, axes: Any, square_axes: Any, eps: Any) -> Any:
    centered = _centered(op, x, axes)
    return op.Div(centered, _deviation(op, op.ReduceMean(_square(op, centered), square_axes, keepdims=1), eps))


def _layer_multiplied(op: Any, x: Any, axes: Any, square_axes: Any, eps: Any) -> Any:
    centered = _centered(op, x, axes)
    variance = op.ReduceMean(_square(op, centered), square_axes, keepdims=1)
    return op.Mul(centered, _reciprocal(op, variance, eps))


def _reciprocal(op: Any, variance: Any, eps: Any) -> Any:
    return either(
        "reciprocal",
        reciprocal=op.Reciprocal(_deviation(op, variance, eps)),
        one_over=op.Div(1.0, _deviation(op, variance, eps)),
        power=op.Pow(op.Add(variance, eps), -0.5),
    )


def _rms_divided(op: Any, x: Any, axes: Any, eps: Any) -> Any:
    return op.Div(x, _deviation(op, op.ReduceMean(_square(op, x), axes, keepdims=1), eps))


def _rms_multiplied(op: Any, x: Any, axes: Any, eps: Any) -> Any:
    return op.Mul(x, _reciprocal(op, op.ReduceMean(_square(op, x), axes, keepdims=1), eps))


def _last_axis(m: Match) -> Mismatch | None:
    """Each reduction runs over the last axis alone, and that axis has a known length."""
    found = dims(m["x"])
    if found is None:
        return Mismatch("rank", "x of known rank", m["x"], m["x"])
    for name in ("axes", "square_axes"):
        tensor = constant(m.get(name))
        if m.get(name) is None:
            continue
        if tensor is None or tensor.numpy().ravel().tolist() not in ([-1], [len(found) - 1]):
            return Mismatch("constant", "the last axis", m[name], m[name])
    if not isinstance(found[-1], int):
        return Mismatch("unknown-dim", "x with a known last dimension", m["x"], m["x"])
    return None


def _positive_eps(m: Match) -> Mismatch | None:
    eps = m.scalar("eps")
    return None if eps is not None and eps > 0 else Mismatch("constant", "a positive epsilon", m["eps"], m["eps"])


def _layer_core(op: Builder, m: Match) -> ir.Value:
    return op.LayerNormalization(m["x"], _ones(op, m["x"]), axis=-1, epsilon=m.scalar("eps"))


def _rms_core(op: Builder, m: Match) -> ir.Value:
    return op.RMSNormalization(m["x"], _ones(op, m["x"]), axis=-1, epsilon=m.scalar("eps"))


def _ones(op: Builder, x: ir.Value) -> ir.Value:
    assert x.dtype is not None and x.shape is not None
    width = x.shape[-1]
    assert isinstance(width, int), "the rule requires a known last dimension"
    return op.constant(np.ones(width, dtype=x.dtype.numpy()), "norm_ones")


_CORE = (scalar_constant("eps"), _last_axis, _positive_eps, dtype("x", *_FLOATS))


def _of_ones(m: Match) -> Mismatch | None:
    if is_ones(m["ones"]):
        return None
    return Mismatch("constant", "a norm whose scale is still ones", m["ones"], m["ones"])


def is_ones(v: ir.Value | None) -> bool:
    tensor = constant(v)
    return tensor is not None and readable(tensor) and bool(np.all(tensor.numpy() == 1))


def _scale_pattern(norm: str) -> Any:
    def pattern(op: Any, x: Any, ones: Any, scale: Any) -> Any:
        normal = getattr(op, norm)(x, ones, axis=-1, epsilon=attr("epsilon"), stash_type=1)
        return op.Mul(normal, scale)

    return pattern


def _with_scale(norm: str) -> Any:
    def rewrite(op: Builder, m: Match) -> ir.Value:
        build: Callable[..., ir.Value] = getattr(op, norm)
        return build(m["x"], m["scale"], axis=-1, epsilon=m.attribute("epsilon"))

    return rewrite


def _bias_pattern(op: Any, x: Any, scale: Any, bias: Any) -> Any:
    return op.Add(op.LayerNormalization(x, scale, axis=-1, epsilon=attr("epsilon"), stash_type=1), bias)


def _with_bias(op: Builder, m: Match) -> ir.Value:
    return op.LayerNormalization(m["x"], m["scale"], m["bias"], axis=-1, epsilon=m.attribute("epsilon"))


def vector(m: Match) -> Mismatch | None:
    """Scale and bias are vectors: a full tensor of the same last dimension is a residual, not a bias."""
    for name in ("scale", "bias"):
        if m.get(name) is not None and rank(m[name]) != 1:
            return Mismatch("rank", f"{name} a vector", m[name], m[name])
    return None


_AFFINE = (vector, shapes(x="... D", scale="D", bias="D"), same_dtype("x", "scale", "bias"))

RULES = [
    Rule("layer-norm", _layer_divided, _layer_core, _CORE, anchor="Sqrt"),
    Rule("layer-norm", _layer_multiplied, _layer_core, _CORE, anchor="Sqrt"),
    Rule("rms-norm", _rms_divided, _rms_core, _CORE, anchor="Sqrt"),
    Rule("rms-norm", _rms_multiplied, _rms_core, _CORE, anchor="Sqrt"),
    Rule(
        "layer-norm-scale",
        _scale_pattern("LayerNormalization"),
        _with_scale("LayerNormalization"),
        (*_AFFINE, _of_ones),
    ),
    Rule("rms-norm-scale", _scale_pattern("RMSNormalization"), _with_scale("RMSNormalization"), (*_AFFINE, _of_ones)),
    Rule("layer-norm-bias", _bias_pattern, _with_bias, _AFFINE),
]
