"""Smoothing before int8: found without data, only where it pays, and without a change to the product."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.calibrate import activations
from onnxsmith.compiler.closeness import check_closeness
from onnxsmith.compiler.inputs import cases
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.quantize import int8, smooth
from tests.toy import encoder

STEPS = pipeline.passes(target("cpu", "int8"), "int8")
PLACE = [step.name for step in STEPS].index("int8")
BEFORE, INT8 = STEPS[:PLACE], STEPS[PLACE]


def outlying() -> ir.Model:
    """The encoder with one channel of a norm a hundred times as large as the others."""
    model = encoder()
    gain = model.graph.initializers["norm1_gain"]
    assert gain.const_value is not None
    data = gain.const_value.numpy().copy()
    data[3] *= 100
    gain.const_value = ir.tensor(data, name=gain.name)
    return model


def lifted(model: ir.Model) -> ir.Model:
    return pipeline.run(canonicalize(model), BEFORE).model


def relative_rms(model: ir.Model, compiled: ir.Model) -> float:
    return check_closeness(model, compiled, list(cases(model)), {})[0].relative_rms


class TestFactors:
    def test_only_outlying_channels_are_divided(self) -> None:
        largest = np.ones(8)
        largest[5] = 40.0
        found = smooth.factors(largest)
        assert found is not None
        assert found[5] == 10.0 and np.all(np.delete(found, 5) == 1)

    def test_ordinary_activations_are_left_alone(self) -> None:
        assert smooth.factors(np.linspace(1, 3, 16)) is None

    def test_a_dead_activation_is_left_alone(self) -> None:
        assert smooth.factors(np.zeros(8)) is None


class TestSmoothing:
    def test_the_outlier_is_found_on_made_up_inputs(self) -> None:
        factors = [found.factor for found in activations(lifted(outlying()), {}).values()]
        assert any(factor is not None and factor.argmax() == 3 and factor[3] > 5 for factor in factors)

    def test_it_brings_int8_nearer(self) -> None:
        model = outlying()
        kernels = target("cpu", "int8").kernels
        assert kernels is not None
        plain = pipeline.Pass("int8", int8.rules(kernels, {}), lossy=True).run(lifted(outlying())).model
        smoothed = INT8.run(lifted(outlying())).model
        assert relative_rms(model, smoothed) < relative_rms(model, plain)

    def test_a_shape_that_does_not_run_is_passed_over(self) -> None:
        looked_up = [step for step in BEFORE if step.name != "position-tables"]  # a slice would not even load
        model = pipeline.run(canonicalize(encoder()), looked_up).model
        model.graph.inputs[0].shape = ir.Shape([2, 200])  # more than the table of positions has
        model.graph.inputs[1].shape = ir.Shape([2, 200])
        assert activations(model, {}) == {}
