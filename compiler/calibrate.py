"""Calibration without data: how large each channel of an activation gets on made-up inputs.

Outlying channels are a property of the weights: random ids find the same ones as real text does. Quantization stays
dynamic, so a channel that grows larger on real inputs costs resolution and never overflows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.emulate import is_narrow, widened
from onnxsmith.compiler.inputs import Case, cases
from onnxsmith.compiler.region import expose
from onnxsmith.compiler.session import run_model
from onnxsmith.passes.engine.absent import AbsentTensor
from onnxsmith.passes.engine.values import constant
from onnxsmith.passes.quantize.activation import Activation, calibrated

Array = np.ndarray[Any, Any]


def activations(model: ir.Model, bounds: Mapping[str, int], samples: Sequence[Case] = ()) -> dict[str, Activation]:
    """What quantization has to know, by name, of the activations that products with constant weights read.

    Only the user's own ``samples`` can fix the scale of an activation.
    """
    products = [n for n in model.graph if n.op_type == "MatMul" and _has_weights(n)]
    names = list(dict.fromkeys(str(n.inputs[0].name) for n in products if n.inputs[0] is not None))
    ranges: dict[str, list[tuple[Array, Array]]] = {}
    for captured in _captures(model, names, samples or cases(model, bounds)):
        for name, x in captured.items():
            channels = x.reshape(-1, x.shape[-1])
            ranges.setdefault(name, []).append((channels.min(axis=0), channels.max(axis=0)))
    both = {name: map(np.stack, zip(*found, strict=True)) for name, found in ranges.items()}
    return {name: calibrated(*lows_and_highs, fixed=bool(samples)) for name, lows_and_highs in both.items()}


def magnitudes(model: ir.Model, bounds: Mapping[str, int]) -> dict[str, float]:
    """The largest magnitude by name of every float32 value; none for a structure, whose weights are absent."""
    if any(isinstance(v.const_value, AbsentTensor) for v in model.graph.initializers.values()):
        return {}
    names = [str(v.name) for n in model.graph for v in n.outputs if v.dtype == ir.DataType.FLOAT and v.name]
    largest: dict[str, float] = {}
    for captured in _captures(widened(model) if is_narrow(model) else model, names, cases(model, bounds)):
        for name, x in captured.items():
            largest[name] = max(largest.get(name, 0.0), float(np.abs(x).max(initial=0.0)))
    return largest


def _captures(model: ir.Model, names: list[str], inputs: Iterable[Case]) -> Iterator[dict[str, Array]]:
    """The named values on every input that the model runs at."""
    run = run_model(expose(model, names))
    for case in inputs:
        try:
            captured = run(case.feeds)
        except Exception:  # a shape that the model does not run at
            continue
        yield captured


def _has_weights(product: ir.Node) -> bool:
    """Whether the second factor is constant, or a constant that a head reads through a Transpose."""
    weight = product.inputs[1]
    turn = weight.producer() if weight is not None else None
    return constant(turn.inputs[0] if turn is not None and turn.op_type == "Transpose" else weight) is not None
