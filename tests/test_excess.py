"""Channels for what a fixed range leaves out: how many, what they hold, and that products lose nothing by them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.quantize import int8
from onnxsmith.passes.quantize.activation import Activation, calibrated, rows_of
from onnxsmith.passes.quantize.excess import Grid, cut_off, excess
from onnxsmith.passes.quantize.scales import scales_told
from tests.toy import parsed

_PRODUCT = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S,64] x) => (float[B,S,64] y)
{
    y = MatMul(x, w)
}
"""
KERNELS = target("cpu", "int8").kernels
WIDTH = 64
_IDENTITY = np.eye(WIDTH, dtype=np.float32)  # its codes are exact


def uneven(largest: float, channels: int = 1, rows: int = 40) -> np.ndarray:
    """Rows [rows, 64] within -1 and 1, of which the first has that in its first channels, with changing signs."""
    x = np.random.default_rng(0).uniform(-1, 1, (rows, WIDTH)).astype(np.float32)
    x[0, :channels] = largest * (-1.0) ** np.arange(channels)
    return x


def of_samples(*inputs: np.ndarray) -> Activation:
    """What calibration on the user's own inputs says; one stands for two that are alike."""
    given = inputs if len(inputs) > 1 else inputs * 2
    lows, highs = (np.stack([end(x, axis=0) for x in given]) for end in (np.min, np.max))
    return calibrated(lows, highs, [rows_of(x) for x in given], fixed=True)


def quantized(found: Activation, weights: np.ndarray) -> ir.Model:
    """One product, in integers."""
    assert KERNELS is not None
    rules = int8.rules(KERNELS, {"x": found})
    return pipeline.Pass("int8", rules, lossy=True).run(canonicalize(parsed(_PRODUCT, {"w": weights}))).model


def product(x: np.ndarray, found: Activation, weights: np.ndarray) -> np.ndarray:
    """The integer product of float32 x [N, 64] with weights [64, 64]."""
    model = quantized(found, weights)
    assert {"QuantizeLinear", "Concat", "MatMulIntegerToFloat"} <= {n.op_type for n in model.graph}
    return run_model(model)({"x": x[None]})["y"][0]


class TestHowMany:
    GRID = Grid.over(-1, 1)

    def bounds(self, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        lows, highs = np.full(8, -0.5), np.full(8, 0.5)
        lows[2], highs[5] = low, high
        return lows, highs

    def test_one_for_each_length_of_the_range(self) -> None:
        found = excess(*self.bounds(-2.9, 1.5), self.GRID, 16)
        assert found is not None
        low, high = self.GRID.ends
        assert found.channels.tolist() == [5, 2, 2] and found.starts.tolist() == [high, low, 2 * low]
        assert found.ends.tolist() == [[0, low, low], [high, 0, 0]]

    def test_none_within_the_range_and_its_rounding(self) -> None:
        (low, high), within = self.GRID.ends, 0.4 * self.GRID.scale
        assert excess(*self.bounds(low - within, high + within), self.GRID, 16) is None
        assert excess(*self.bounds(low - 2 * within, high), self.GRID, 16) is not None

    def test_none_where_they_are_too_many(self) -> None:
        assert excess(*self.bounds(-9.5, 9.5), self.GRID, 16) is None
        assert excess(*self.bounds(-9.5, 9.5), self.GRID, 18) is not None

    def test_none_on_a_side_without_a_range(self) -> None:
        assert excess(*self.bounds(-3, 0.5), Grid.over(0, 1), 16) is None

    def test_what_others_would_not_have_covered(self) -> None:
        inputs = [self.bounds(-2.9, high) for high in (0.5, 1.5, 1.7)]
        lows, highs = (np.stack(ends) for ends in zip(*inputs, strict=True))
        beyond = 1.7 - float(self.GRID.ends[1])
        assert cut_off(lows, highs, self.GRID) == 0  # 1.5 needs one more, which holds 1.7 as well
        assert cut_off(lows[1:2], highs[1:2], self.GRID) == np.inf
        assert cut_off(lows[::2], highs[::2], self.GRID) == pytest.approx(beyond / 2)

    def test_a_side_without_a_range_loses_what_it_has(self) -> None:
        lows, highs = (np.stack([end] * 2) for end in self.bounds(-0.5, 0.9))
        assert cut_off(lows, highs, Grid.over(0, 1)) == 0.5


class TestCalibrated:
    def test_a_few_channels_of_some_rows_are_split(self) -> None:
        found = of_samples(uneven(12, channels=2))
        assert found.excess is not None and set(found.excess.channels) == {0, 1} and not found.by_row
        assert found.span == pytest.approx((-1.5, 1.5), rel=0.05)

    def test_a_channel_that_outlies_in_all_rows_is_split_instead_of_divided(self) -> None:
        x = uneven(1)
        x[:, 7] = 20
        found = of_samples(x)
        assert found.factor is None and found.excess is not None and set(found.excess.channels) == {7}

    def test_rows_have_scales_of_their_own_where_it_takes_too_many(self) -> None:
        assert of_samples(uneven(400)).by_row and of_samples(uneven(12, channels=30)).by_row

    def test_the_range_is_as_small_as_the_added_channels_allow(self) -> None:
        spans = [of_samples(uneven(largest)).span for largest in (12, 25, 35)]
        assert [high for _, high in map(np.array, spans)] == pytest.approx([1.5, 1.5, 2.5], rel=0.05)

    def test_what_outlies_must_be_the_same_in_all_inputs(self) -> None:
        turned = [np.roll(uneven(12), channel, axis=1) for channel in range(4)]
        assert of_samples(*turned).by_row
        assert of_samples(*(uneven(12, rows=rows) for rows in (30, 40, 50))).excess is not None

    def test_one_input_cannot_tell(self) -> None:
        x = uneven(12)
        found = calibrated(x.min(axis=0)[None], x.max(axis=0)[None], [rows_of(x)], fixed=True)
        assert found.excess is None and found.by_row

    def test_even_rows_need_none(self) -> None:
        found = of_samples(uneven(2))
        assert found.excess is None and found.span is not None

    def test_made_up_inputs_split_nothing(self) -> None:
        x = uneven(12)
        found = calibrated(x.min(axis=0)[None], x.max(axis=0)[None], [rows_of(x)], fixed=False)
        assert found.excess is None and found.by_row


class TestProducts:
    def test_neither_the_row_nor_the_others_lose_resolution(self) -> None:
        x = uneven(12, channels=2)
        weights = np.random.default_rng(1).normal(0, 0.001, (WIDTH, WIDTH)).astype(np.float32)
        exact, found = x.astype(np.float64) @ weights, of_samples(x)
        off = np.abs(product(x, found, weights) - exact)
        assert off.max() < 0.02 * np.abs(exact[1:]).max()

    @given(st.floats(-1, 11.75, width=32), st.floats(-11.75, 1, width=32))
    def test_all_of_a_value_arrives(self, upwards: float, downwards: float) -> None:
        x = uneven(12, channels=2)
        found = of_samples(x)
        x[1, :2] = upwards, downwards
        grid = found.grid()
        assert grid is not None
        y = product(x, found, _IDENTITY)
        np.testing.assert_allclose(y[1], x[1], atol=1.1 * float(grid.scale))  # two codes, half a step each

    def test_beyond_the_samples_it_saturates(self) -> None:
        x = uneven(12)
        found = of_samples(x)
        x[1, 0] = 50
        y = product(x, found, _IDENTITY)
        assert 12 <= y[1, 0] < 13.5 and np.abs(y[1, 1:] - x[1, 1:]).max() < 0.03


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Activation(), "from each input (1)"),
        (Activation(by_row=True), "for each row (1)"),
        (Activation(span=(-1, 1)), "fixed (1)"),
        (of_samples(uneven(12)), "fixed with channels added (1)"),
    ],
)
def test_the_kind_of_scale_is_told(found: Activation, told: str) -> None:
    (remark,) = scales_told(quantized(found, _IDENTITY))
    assert remark.reason == f"activations have scales {told}"


def test_nothing_is_told_without_integer_products() -> None:
    assert scales_told(canonicalize(parsed(_PRODUCT, {"w": _IDENTITY}))) == []
