"""Calibration without data: how large each channel of an activation gets on made-up inputs.

Outlying channels are a property of the weights: random ids find the same ones as real text does. Quantization stays
dynamic, so a channel that grows larger on real inputs costs resolution and never overflows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.inputs import cases
from onnxsmith.compiler.region import expose
from onnxsmith.compiler.session import run_model
from onnxsmith.passes.engine.values import constant
from onnxsmith.passes.quantize import smooth

Array = np.ndarray[Any, Any]


def smoothing(model: ir.Model, bounds: Mapping[str, int]) -> dict[str, Array]:
    """Smoothing factors [K] by name, for the activations that products with constant weights read."""
    products = [n for n in model.graph if n.op_type == "MatMul" and _has_weights(n)]
    names = list(dict.fromkeys(str(n.inputs[0].name) for n in products if n.inputs[0] is not None))
    run = run_model(expose(model, names))
    largest: dict[str, Array] = {}
    for case in cases(model, bounds):
        try:
            captured = run(case.feeds)
        except Exception:  # a shape that the model does not run at
            continue
        for name, x in captured.items():
            channels = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0)
            largest[name] = np.maximum(largest.get(name, channels), channels)
    found = {name: smooth.factors(channels) for name, channels in largest.items()}
    return {name: factor for name, factor in found.items() if factor is not None}


def _has_weights(product: ir.Node) -> bool:
    """Whether the second factor is constant, or a constant that a head reads through a Transpose."""
    weight = product.inputs[1]
    turn = weight.producer() if weight is not None else None
    return constant(turn.inputs[0] if turn is not None and turn.op_type == "Transpose" else weight) is not None
