"""The float64 reference: exact where onnx's own evaluator is not, and float32 where double would be another model."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler.reference import Reference, to_double
from onnxsmith.compiler.session import run_model
from tests.toy import encoder, parsed

X = np.array([-3.0, -0.7, 0.0, 1e-3, 0.5, 2.5], np.float32)


def run(body: str, feeds: dict[str, np.ndarray], head: str = "(float[N] x) => (float[N] y)") -> np.ndarray:
    model = parsed(f'<ir_version: 10, opset_import: ["" : 23]> g {head} {body}')
    return Reference(model).run(feeds)["y"]


def test_erf_is_exact_in_double() -> None:
    expected = [math.erf(float(x)) for x in X]
    assert np.array_equal(run("{ y = Erf(x) }", {"x": X}), expected)


def test_gelu_is_exact_in_double() -> None:
    expected = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in X.astype(float)]
    assert np.allclose(run("{ y = Gelu(x) }", {"x": X}), expected, rtol=1e-15, atol=0)


def test_tanh_gelu_is_exact_in_double() -> None:
    x = X.astype(float)
    expected = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert np.allclose(run('{ y = Gelu<approximate="tanh">(x) }', {"x": X}), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", [1, 3, 6]),
        ("<exclusive=1>", [0, 1, 3]),
        ("<reverse=1>", [6, 5, 3]),
        ("<exclusive=1, reverse=1>", [5, 3, 0]),
    ],
)
@pytest.mark.parametrize("axis", ["int64 axis = {0}", "int64[1] axis = {0}"])
def test_cumulative_sums_take_either_form_of_axis(attributes: str, expected: list[int], axis: str) -> None:
    found = run(f"<{axis}> {{ y = CumSum{attributes}(x, axis) }}", {"x": np.array([1, 2, 3], np.float32)})
    assert found.tolist() == expected


def test_constants_casts_and_fills_are_double() -> None:
    body = """{
        third = Constant<value_float=0.1>()
        pair = Constant<value_floats=[0.1, 0.2]>()
        tensor = Constant<value=float {0.3}>()
        size = Shape(x)
        zeros = ConstantOfShape(size)
        tens = ConstantOfShape<value=float[1] {0.1}>(size)
        whole = Cast<to=7>(x)
        back = Cast<to=1>(whole)
        a = Add(third, tensor)
        b = Add(zeros, tens)
        c = Mul(back, a)
        d = ReduceSum(pair)
        e = Add(c, b)
        y = Add(e, d)
    }"""
    found = run(body, {"x": X})
    assert found.dtype == np.float64
    single = np.float32([0.1, 0.2, 0.3]).astype(float)
    assert np.allclose(found, np.trunc(X) * (single[0] + single[2]) + single[0] + single[0] + single[1], rtol=1e-15)


BUCKETS = """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[N] distance) => (float[N] y)
<float scale = {16.0}, float base = {2.0794415}, int64 last = {31}>
{
    near = Cast<to=1>(distance)
    ratio = Div(near, scale)
    log = Log(ratio)
    steps = Div(log, base)
    wide = Mul(steps, scale)
    bucket = Cast<to=7>(wide)
    kept = Min(bucket, last)
    y = Gather(table, kept)
}
"""


def test_the_buckets_of_relative_positions_are_those_of_float32() -> None:
    model = parsed(BUCKETS, {"table": np.arange(32)})
    feeds = {"distance": np.arange(16, 129)}
    truth, single = Reference(model).run(feeds)["y"], run_model(model)(feeds)["y"]
    assert truth.dtype == np.float64
    assert np.array_equal(truth, single)


def test_only_cones_without_weights_stay_single() -> None:
    def casts(text: str) -> list[int]:
        proto, _ = to_double(parsed(text, {"table": np.arange(32)}))
        return [node.attribute[0].i for node in proto.graph.node if node.op_type == "Cast"]

    assert casts(BUCKETS) == [ir.DataType.FLOAT, ir.DataType.INT64]
    weighted = BUCKETS.replace("Div(near, scale)", "Div(near, table)")
    assert casts(weighted) == [ir.DataType.DOUBLE, ir.DataType.INT64]


def test_subgraphs_are_double() -> None:
    body = """<float tenth = {0.1}> {
        y = If (c) <
            then_branch = yes () => (float[N] a) { a = Mul(x, tenth) },
            else_branch = no () => (float[N] b) { k = Constant<value_float=0.2>() b = Mul(x, k) }
        >
    }"""
    for chosen, factor in ((True, 0.1), (False, 0.2)):
        found = run(body, {"x": X, "c": np.array(chosen)}, "(float[N] x, bool c) => (float[N] y)")
        assert np.array_equal(found, X.astype(float) * float(np.float32(factor)))


def test_the_model_is_not_modified() -> None:
    model = encoder()
    before = {name: v.const_value for name, v in model.graph.initializers.items()}
    types = [(v.name, v.dtype) for v in model.graph.inputs]
    Reference(model).run({"input_ids": np.ones((1, 3), np.int64), "attention_mask": np.ones((1, 3), np.int64)})
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in before.items())
    assert [(v.name, v.dtype) for v in model.graph.inputs] == types
    assert model.graph.num_nodes() == encoder().graph.num_nodes()


def test_double_is_closer_than_single() -> None:
    feeds = {"input_ids": np.arange(14).reshape(2, 7), "attention_mask": np.ones((2, 7), np.int64)}
    truth, single = Reference(encoder()).run(feeds)["hidden"], run_model(encoder())(feeds)["hidden"]
    assert truth.dtype == np.float64
    assert 0 < np.abs(truth - single).max() < 1e-4


@pytest.mark.parametrize(("axis", "shape"), [(0, (70, 2)), (-1, (80, 5)), (1, (3, 4))])
def test_gathering_elements(axis: int, shape: tuple[int, int]) -> None:
    """Of more rows than onnx's own evaluator takes, and of fewer than the table has."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(80, 5)).astype(np.float32)
    length = data.shape[axis]
    indices = rng.integers(-length, length, shape)
    head = "(float[N,M] x, int64[K,L] i) => (float[K,L] y)"
    found = run(f"{{ y = GatherElements<axis={axis}>(x, i) }}", {"x": data, "i": indices}, head)
    for place in np.ndindex(*shape):
        source = list(place)
        source[axis] = indices[place]
        assert found[place] == data[tuple(source)]
