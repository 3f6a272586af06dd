"""Rounding that makes up for itself: nearer where activations move together, and sound where they tell little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler import calibrate, pipeline
from onnxsmith.compiler.calibrate import Moments
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.quantize.blocks import Blocks, quantize_blocks
from onnxsmith.passes.quantize.compensated import compensate
from tests.toy import parsed

RNG = np.random.default_rng(0)
_TWO = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,64] x) => (float[B,40] y) { n = Neg(x)  h = MatMul(n, w1)  a = Relu(h)  y0 = MatMul(a, w2)  y = Neg(y0) }
"""

_ONE = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,160] x) => (float[B,40] y) { n = Neg(x)  h = MatMul(n, w)  y = Neg(h) }
"""


def related(count: int, columns: int) -> np.ndarray:
    """Activations [count, columns] of which a few causes move all channels, as in a Transformer."""
    causes = RNG.normal(size=(count, 6)) @ RNG.normal(size=(6, columns))
    return (causes + 0.1 * RNG.normal(size=(count, columns))).astype(np.float32)


def moment(x: np.ndarray) -> np.ndarray:
    return x.T @ x / len(x)


def error(found: Blocks, matrix: np.ndarray, x: np.ndarray) -> float:
    """Mean square of what is wrong with the product."""
    return float(np.square(x @ (found.dequantized()[:, : matrix.shape[1]] - matrix).T).mean())


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("columns", [64, 70])
def test_products_of_other_inputs_are_nearer(columns: int, size: int) -> None:
    matrix, x = RNG.normal(size=(24, columns)).astype(np.float32), related(400, columns)
    found = compensate(matrix, moment(x[:200]), 4, size)
    assert error(found, matrix, x[200:]) < 0.5 * error(quantize_blocks(matrix, 4, size), matrix, x[200:])


def test_unrelated_channels_are_rounded_to_nearest() -> None:
    matrix = RNG.normal(size=(8, 64)).astype(np.float32)
    found = compensate(matrix, np.eye(64, dtype=np.float32), 4, 32)
    nearest = np.clip(np.rint(matrix.reshape(8, 2, 32) / found.scales[..., None]), -8, 7) + 8
    np.testing.assert_array_equal(found.codes, nearest)


@pytest.mark.parametrize("x", [np.zeros((1, 48)), related(1, 48), np.eye(48)[:5] * 1e4], ids=["dead", "one", "few"])
def test_few_inputs_do_no_harm(x: np.ndarray) -> None:
    matrix = RNG.normal(size=(8, 48)).astype(np.float32)
    found = compensate(matrix, moment(x.astype(np.float32)), 4, 32).dequantized()
    assert np.isfinite(found).all() and not found[:, 48:].any()
    assert np.square(found[:, :48] - matrix).mean() < 0.1 * np.square(matrix).mean()


def two_products() -> ir.Model:
    rng = np.random.default_rng(1)
    shapes = {"w1": (64, 48), "w2": (48, 40)}
    model = parsed(_TWO, {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    return canonicalize(model)


def samples() -> list[Case]:
    return [Case("some", {"x": x}, np.ones(len(x), bool)) for x in np.split(related(240, 64), 8)]


@pytest.mark.parametrize("most", [1, 1 << 30])
def test_moments_are_those_of_all_samples(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few of them may be held at a time."""
    monkeypatch.setattr(calibrate, "_MOST_HELD", most)
    model, cases = two_products(), samples()
    found = Moments(model, cases)
    x = -np.concatenate([case.feeds["x"] for case in cases])
    weight = model.graph.initializers["w1"].const_value
    assert weight is not None
    for name, expected in {"a": np.maximum(x @ weight.numpy(), 0), "n": x}.items():
        np.testing.assert_allclose(found.of(name), moment(expected), rtol=1e-4, atol=1e-3)
    assert found.of("h") is None


def test_samples_bring_four_bits_nearer() -> None:
    cases = samples()
    assert off(cases[::2], cases[1::2]) < 0.6 * off((), cases[1::2])


@pytest.mark.parametrize(("calibrating", "bits"), [((), [4, 8]), (samples(), [4, 4])], ids=["without", "with samples"])
def test_a_head_takes_four_bits_where_samples_round_it(calibrating: Sequence[Case], bits: list[int]) -> None:
    model = two_products()
    model.graph.outputs[0] = model.graph.outputs[0].producer().inputs[0]  # type: ignore[union-attr]
    steps = pipeline.passes(target("cpu", "int4"), "int4", samples=calibrating)
    compiled = pipeline.run(model, [step for step in steps if step.lossy]).model
    assert [n.attributes["bits"].value for n in compiled.graph if n.op_type == "MatMulNBits"] == bits


def test_blocks_that_samples_round_are_larger() -> None:
    weight = RNG.normal(size=(160, 40)).astype(np.float32)
    for cases, size in ((), 32), ([Case("some", {"x": related(40, 160)}, np.ones(40, bool))], 128):
        steps = pipeline.passes(target("cpu", "int4"), "int4", samples=cases)
        compiled = pipeline.run(canonicalize(parsed(_ONE, {"w": weight})), [step for step in steps if step.lossy]).model
        assert [n.attributes["block_size"].value for n in compiled.graph if n.op_type == "MatMulNBits"] == [size]


def off(calibrating: Sequence[Case], judging: Sequence[Case]) -> float:
    steps = pipeline.passes(target("cpu", "int4"), "int4", samples=calibrating)
    compiled = pipeline.run(two_products(), [step for step in steps if step.lossy]).model
    assert [n.op_type for n in compiled.graph].count("MatMulNBits") == 2
    exact, lossy = run_model(two_products()), run_model(compiled)
    return float(np.mean([np.square(exact(c.feeds)["y"] - lossy(c.feeds)["y"]).mean() for c in judging]))
