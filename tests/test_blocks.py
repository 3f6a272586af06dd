"""Blocks: every element as near as its codes allow, whatever the shape; and what the rules make of bad weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.passes.engine.names import name_nodes
from onnxsmith.passes.quantize.blocks import Blocks, packed, quantize_blocks
from tests.toy import parsed

BITS, SIZES = st.sampled_from([4, 8]), st.sampled_from([16, 32, 128])
ELEMENTS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
MATRICES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=70), elements=ELEMENTS)
_LINEAR = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,K] x) => (float[B,48] y) { a = MatMul(x, w) y = Relu(a) }
"""


def steps(found: Blocks, columns: int) -> np.ndarray:
    """The step of every element [R, C]."""
    return np.repeat(np.abs(found.scales), found.codes.shape[-1], axis=-1)[:, :columns]


class TestQuantizeBlocks:
    @given(MATRICES, BITS, SIZES)
    def test_within_half_a_step_but_for_what_is_cut_off(self, matrix: np.ndarray, bits: int, size: int) -> None:
        found, columns = quantize_blocks(matrix, bits, size), matrix.shape[1]
        off = np.abs(found.dequantized()[:, :columns].astype(np.float64) - matrix)
        codes = found.codes.reshape(len(matrix), -1)[:, :columns]
        cut_off = (bits == 4) & ((codes == 0) | (codes == 15))
        assert np.all(cut_off | (off <= steps(found, columns) * (0.5 + 1e-4)))

    @given(MATRICES, SIZES)
    def test_cutting_off_never_costs_accuracy(self, matrix: np.ndarray, size: int) -> None:
        found = quantize_blocks(matrix, 4, size).dequantized()[:, : matrix.shape[1]].astype(np.float64)
        spans = np.abs(matrix).max(axis=1, keepdims=True)  # of whole rows: no block's is larger
        assert np.square(found - matrix).mean() <= np.square(spans / 7 / 2).mean() * (1 + 1e-3) + 1e-37

    def test_a_lone_large_element_is_cut_off(self) -> None:
        matrix = np.random.default_rng(0).uniform(-1, 1, (1, 32)).astype(np.float32)
        matrix[0, 3] = 1.4
        whole = np.float32(1.4 / 8)
        found = quantize_blocks(matrix, 4, 32)
        naive = np.clip(np.rint(matrix / -whole), -8, 7) * -whole
        assert abs(found.scales[0, 0]) < whole
        assert np.square(found.dequantized() - matrix).sum() < np.square(naive - matrix).sum()

    @given(MATRICES, BITS, SIZES)
    def test_the_step_is_no_larger_than_the_range_asks_for(self, matrix: np.ndarray, bits: int, size: int) -> None:
        found = quantize_blocks(matrix, bits, size)
        largest = np.abs(matrix).max(axis=1)
        assert np.all(np.abs(found.scales).max(axis=1) <= 1.001 * largest / (2 ** (bits - 1) - 1) + 1e-37)

    @given(st.integers(1, 70), BITS, SIZES)
    def test_zeros_stay_zero(self, columns: int, bits: int, size: int) -> None:
        assert not quantize_blocks(np.zeros((3, columns), np.float32), bits, size).dequantized().any()

    @given(ELEMENTS, st.integers(1, 70), BITS, SIZES)
    def test_constants_are_exact(self, value: float, columns: int, bits: int, size: int) -> None:
        matrix = np.full((2, columns), value, np.float32)
        found = quantize_blocks(matrix, bits, size).dequantized()[:, :columns]
        np.testing.assert_allclose(found, matrix, rtol=1e-6, atol=1e-37)

    @given(MATRICES, BITS, SIZES)
    def test_the_filling_stands_for_zero(self, matrix: np.ndarray, bits: int, size: int) -> None:
        assert not quantize_blocks(matrix, bits, size).dequantized()[:, matrix.shape[1] :].any()

    def test_one_sided_blocks_get_zero_points(self) -> None:
        matrix = np.random.default_rng(0).uniform(1, 2, (4, 64)).astype(np.float32)
        assert quantize_blocks(matrix, 4, 32).zeros is not None

    def test_even_blocks_need_none(self) -> None:
        matrix = np.tile(np.arange(-8, 8, dtype=np.float32), (4, 2))
        found = quantize_blocks(matrix, 4, 32)
        assert found.zeros is None
        np.testing.assert_array_equal(found.dequantized(), matrix)


def test_two_codes_share_a_byte_the_first_in_its_lower_half() -> None:
    codes = np.array([[1, 2, 3]], np.uint8)
    assert packed(codes, 4).tolist() == [[0x21, 0x03]]
    assert packed(codes, 8) is codes


@pytest.mark.parametrize("precision", ["int4", "int8-weights"])
@pytest.mark.parametrize("rows", [32, 40, 100])
def test_the_kernel_reads_what_was_written(precision: str, rows: int) -> None:
    """ONNX Runtime's product is that of the numbers the codes stand for, but for its own int8 activations."""
    weight = np.random.default_rng(0).uniform(-1, 2, (rows, 48)).astype(np.float32)
    x = np.random.default_rng(1).integers(-127, 128, (3, rows)).astype(np.float32)
    x[:, ::32] = 127  # whole numbers with a step of one in every block: exact in int8
    step = next(step for step in _steps(precision) if step.rules)
    model = _model(weight)
    found = run_model(step.run(model.clone()).model)({"x": x})["y"]
    bits = 4 if precision == "int4" else 8
    stands_for = quantize_blocks(weight.T, bits, 32).dequantized()[:, :rows].T
    np.testing.assert_allclose(found, np.maximum(x @ stands_for, 0), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("precision", ["int4", "int8-weights", "int8"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_weights_that_are_no_numbers_are_left_alone(precision: str, bad: float) -> None:
    weight = np.ones((32, 48), np.float32)
    weight[3, 4] = bad
    outcome = pipeline.run(_model(weight), _steps(precision))
    assert [n.op_type for n in outcome.model.graph] == ["MatMul", "Relu"]
    assert {r.reason for r in outcome.remarks if r.kind == "missed"} == {
        "constant: expected finite weights, found an infinity or NaN"
    }


def _model(weight: np.ndarray) -> ir.Model:
    model = parsed(_LINEAR.replace("K", str(weight.shape[0])), {"w": weight})
    name_nodes(model)
    return model


def _steps(precision: str) -> list[pipeline.Pass]:
    return [step for step in pipeline.passes(target("cpu", precision), precision) if step.lossy]
