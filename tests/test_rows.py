"""Rows of an activation that differ in size have scales of their own; a head loses nothing of its activation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.calibrate import activations
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.quantize import int8
from onnxsmith.passes.quantize.activation import Activation, calibrated, rows_of
from tests.toy import parsed

_FFN = """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[B,S] ids) => (float[B,S,64] y)
{
    x = Gather(table, ids)
    h = Relu(x)
    a = MatMul(h, w)
    b = Add(a, bias)
    y = Tanh(b)
}
"""
_HEAD = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S,128] x) => (float[B,S,96] y)
{
    h = Relu(x)
    y = MatMul(h, w)
}
"""
KERNELS = target("cpu", "int8").kernels


def ffn(largest: float) -> ir.Model:
    """One token of the hundred is that much larger than the others."""
    random = np.random.default_rng(0)
    table = random.normal(0, 1, (100, 64))
    table[7] *= largest
    return canonicalize(
        parsed(_FFN, {"table": table, "w": random.normal(0, 0.1, (64, 64)), "bias": random.normal(0, 1, 64)})
    )


def quantized(model: ir.Model, found: Mapping[str, Activation]) -> ir.Model:
    assert KERNELS is not None
    return pipeline.Pass("int8", int8.rules(KERNELS, found), lossy=True).run(model.clone()).model


class TestRowsOf:
    def test_the_largest_over_the_usual_one(self) -> None:
        found = rows_of(np.array([[1, -2], [2, 0], [10, -40], [0, 0]], np.float32))
        assert found.uneven == 20 and found.shares.tolist() == [pytest.approx(0.58333, rel=1e-4), pytest.approx(2 / 3)]

    def test_a_channel_that_outlies_in_all_rows_does_not_count(self) -> None:
        x = np.ones((9, 8), np.float32)
        x[:, 3] = np.linspace(1, 300, 9)
        assert rows_of(x).uneven < 4

    def test_padding_alone_is_even(self) -> None:
        assert rows_of(np.zeros((3, 4), np.float32)).uneven == 1

    @pytest.mark.parametrize(("largest", "by_row"), [(1.5, False), (20, True)])
    def test_uneven_rows_have_their_own_scales(self, largest: float, by_row: bool) -> None:
        x = np.ones((8, 4), np.float32)
        x[0] = largest
        lows, highs = (np.stack([end] * 2) for end in (x.min(axis=0), x.max(axis=0)))
        found = calibrated(lows, highs, [rows_of(x)] * 2, fixed=True)
        assert found.by_row == by_row and (found.span is None) == by_row


class TestScalesByRow:
    FEEDS = {"ids": np.array([[7, 1, 2, 3, 4, 5, 6, 8], [9, 10, 11, 12, 13, 14, 15, 16]])}

    def test_ordinary_rows_keep_their_resolution(self) -> None:
        model = ffn(300)
        exact = run_model(model)(self.FEEDS)["y"]
        rounded, apart = (run_model(quantized(model, found))(self.FEEDS)["y"] for found in ({}, activations(model, {})))
        assert np.abs(rounded - exact)[0, 1:].max() > 0.5
        assert np.abs(apart - exact)[0, 1:].max() < 0.05 and np.abs(apart - exact)[1].max() < 0.05

    def test_even_rows_share_one_scale(self) -> None:
        model = ffn(1)
        assert {"ReduceMax", "Div"}.isdisjoint(n.op_type for n in quantized(model, activations(model, {})).graph)

    def test_rows_of_zeros_stay_zeros(self) -> None:
        model = ffn(300)
        found = activations(model, {})
        model.graph.initializers["table"].const_value = ir.tensor(np.zeros((100, 64), np.float32))
        apart = run_model(quantized(model, found))(self.FEEDS)["y"]
        bias = model.graph.initializers["bias"].const_value
        assert bias is not None
        np.testing.assert_allclose(apart, np.broadcast_to(np.tanh(bias.numpy()), apart.shape), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 128), (2, 5, 128), (2, 0, 128)])
def test_a_head_loses_nothing_of_its_activation(shape: tuple[int, ...]) -> None:
    """Weights on the codes' lattice are exact, so all that is left is what rounding the activation costs."""
    random = np.random.default_rng(0)
    w = random.integers(-127, 128, (128, 96)).astype(np.float32)
    w[::32] = -128  # the largest of every block
    x = random.normal(0, 1, shape).astype(np.float32) * np.exp(random.normal(0, 2, 128)).astype(np.float32)
    found = {}
    for precision in ("fp32", "int8-weights", "int4"):
        steps = pipeline.passes(target("cpu", precision), precision)
        found[precision] = run_model(pipeline.run(canonicalize(parsed(_HEAD, {"w": w})), steps).model)({"x": x})["y"]
    off = {p: np.abs(y - found["fp32"]).max(initial=0) for p, y in found.items()}
    assert off["int8-weights"] <= 0.01 * off["int4"]  # there, a head is in 8 bits too and rounds what it reads
    assert found["int8-weights"].shape == found["fp32"].shape
