"""Calibration without data: how large each channel of an activation gets on made-up inputs.

Outlying channels are a property of the weights: random ids find the same ones as real text does. Quantization stays
dynamic, so a channel that grows larger on real inputs costs resolution and never overflows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.emulate import is_narrow, widened
from onnxsmith.compiler.inputs import Case, cases
from onnxsmith.compiler.region import expose
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.steps import text_of
from onnxsmith.passes.cache.record import recorded
from onnxsmith.passes.engine.absent import AbsentTensor
from onnxsmith.passes.engine.values import constant, dims
from onnxsmith.passes.quantize.activation import Activation, Rows, calibrated, rows_of

Array = np.ndarray[Any, Any]
_MOST_HELD = 1 << 30  # bytes of second moments at a time


def sizes(model: ir.Model, bounds: Mapping[str, int], samples: Sequence[Case] = ()) -> dict[str, Array]:
    """The mean magnitude [K] of each channel, by name, of the activations that products with constant weights read."""
    names = [str(v.name) for v in _read_by_products(model)]
    sums: dict[str, Array] = {}
    rows: dict[str, int] = defaultdict(int)
    for captured in _captures(model, names, samples or cases(model, bounds)):
        for name, x in captured.items():
            flat = np.abs(x.reshape(-1, x.shape[-1]))
            sums[name] = sums.get(name, 0) + flat.sum(axis=0)
            rows[name] += len(flat)
    return {name: total / rows[name] for name, total in sums.items() if rows[name]}


def activations(model: ir.Model, bounds: Mapping[str, int], samples: Sequence[Case] = ()) -> dict[str, Activation]:
    """What quantization has to know, by name, of the activations that products with constant weights read.

    Only the user's own ``samples`` can fix the scale of an activation.
    """
    names, has_cache = [str(v.name) for v in _read_by_products(model)], recorded(model) is not None
    found: dict[str, list[tuple[Array, Array, Rows]]] = {}
    for captured in _captures(model, names, samples or cases(model, bounds)):
        for name, x in captured.items():
            flat = x.reshape(-1, x.shape[-1])
            found.setdefault(name, []).append((flat.min(axis=0), flat.max(axis=0), rows_of(flat)))
    by_kind = {name: tuple(zip(*inputs, strict=True)) for name, inputs in found.items()}
    return {
        name: calibrated(np.stack(lows), np.stack(highs), rows, fixed=bool(samples), steps=has_cache)
        for name, (lows, highs, rows) in by_kind.items()
    }


class Moments:
    """Second moments E[x^T x] [K, K] of the activations that products with constant weights read, by name.

    They are found as they are asked for, in the order of the graph, a few at a time: all together they may be larger
    than the weights. The model must not change in the meantime.
    """

    def __init__(self, model: ir.Model, inputs: Sequence[Case]) -> None:
        self._model, self._inputs = model, inputs
        self._widths = {str(v.name): _width(v) for v in _read_by_products(model)}
        self._held: dict[str, Array] = {}

    def of(self, name: str) -> Array | None:
        """The moment of the named activation; None of an input, or of what no product reads."""
        if name not in self._held and self._widths.get(name):
            self._held = self._found(self._next(name))
        return self._held.get(name)

    def _next(self, first: str) -> list[str]:
        """The activation and those after it, as many as may be held."""
        names = list(self._widths)
        names = names[names.index(first) :]
        sizes = np.cumsum([4 * self._widths[name] ** 2 for name in names])
        return names[: max(1, int(np.searchsorted(sizes, _MOST_HELD, "right")))]

    def _found(self, names: list[str]) -> dict[str, Array]:
        sums: dict[str, Array] = {}
        rows: dict[str, int] = defaultdict(int)
        for captured in _captures(self._model, names, self._inputs):
            for name, x in captured.items():
                flat = x.reshape(-1, x.shape[-1])
                sums[name] = sums.get(name, 0) + flat.T @ flat
                rows[name] += len(flat)
        return {name: total / rows[name] for name, total in sums.items()}


def stored(model: ir.Model, samples: Sequence[Case]) -> dict[str, Array]:
    """The largest magnitude [H, D] of each channel of the keys and values that a model keeps, by the name of present.

    They are read as a prompt; padding does not count.
    """
    cache, run = recorded(model), run_model(model)
    assert cache is not None, "only a model with a cache keeps them"
    largest: dict[str, Array] = {}
    for case in samples:
        found, (_, mask) = run(case.feeds), text_of(cache, case.feeds)
        for name in cache.present:
            kept = np.abs(found[name]).max(axis=2, initial=0, where=mask[:, None, :, None] != 0).max(axis=0)
            largest[name] = np.maximum(largest.get(name, 0), kept)
    return largest


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


def _read_by_products(model: ir.Model) -> list[ir.Value]:
    """What products with constant weights read, in the order of the graph."""
    products = [n for n in model.graph if n.op_type == "MatMul" and _has_weights(n)]
    return list(dict.fromkeys(n.inputs[0] for n in products if n.inputs[0] is not None))


def _width(v: ir.Value) -> int:
    """The number of channels; 0 where it is unknown."""
    last = (dims(v) or [None])[-1]
    return last if isinstance(last, int) else 0


def _has_weights(product: ir.Node) -> bool:
    """Whether the second factor is constant, or a constant that a head reads through a Transpose."""
    weight = product.inputs[1]
    turn = weight.producer() if weight is not None else None
    return constant(turn.inputs[0] if turn is not None and turn.op_type == "Transpose" else weight) is not None
