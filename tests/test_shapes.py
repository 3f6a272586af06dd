"""Symbolic sizes: products of numbers and names, and what shape computations give."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.shapes import ONE, Size, evaluate, reshaped, size_of, sizes
from onnxsmith.passes.symbolic import infer
from tests.toy import parsed

A, B, TWELVE = Size(1, ("a",)), Size(1, ("b",)), Size(12)


def test_sizes_multiply_and_divide_exactly() -> None:
    assert A * B == B * A == Size(1, ("a", "b"))
    assert (TWELVE * A) // Size(4) == Size(3, ("a",))
    assert (A * B) // A == B
    assert A // B is None and TWELVE // Size(5) is None and A // Size(2) is None and A // Size(0) is None


@pytest.mark.parametrize(
    ("dim", "size"),
    [
        (7, Size(7)),
        ("batch", Size(1, ("batch",))),
        ("12*batch", Size(12, ("batch",))),
        ("a*b", A * B),
        ("a + b", Size(1, ("a + b",))),
    ],
)
def test_dimensions_read_as_sizes_and_back(dim: int | str, size: Size) -> None:
    assert size_of(dim) == size
    assert size.dim == dim


def test_only_numbers_are_known() -> None:
    assert (TWELVE.known, A.known, ONE.known, str(Size(1)), str(Size(2, ("a",)))) == (12, None, 1, "1", "2*a")


def inferred(body: str, consts: str = "", given: str = "float[B,S,8] x") -> dict[str, ir.Value]:
    """The values of a graph by name, their shapes inferred."""
    consts = f"<{consts}>" if consts else ""
    model = parsed(
        f'<ir_version: 10, opset_import: ["" : 23]> g ({given}) => (float y) {consts}'
        f"{{ {body} z = Neg(x) y = ReduceSum(z) }}"
    )
    infer(model)
    return {str(v.name): v for v in [*model.graph.inputs, *(v for n in model.graph for v in n.outputs)]}


CONSTS = (
    "int64[1] k = {2}, int64 i = {1}, int64[1] from = {1}, int64[1] to = {3}, int64[1] step = {2}, int64[1] end = {9}"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("v = Shape(x)", ["B", "S", 8]),
        ("v = Shape<start=1>(x)", ["S", 8]),
        ("v = Shape<start=-1>(x)", [8]),
        ("s = Shape(x) v = Gather(s, i)", ["S"]),
        ("s = Shape(x) v = Slice(s, from, to)", ["S", 8]),
        ("s = Shape(x) a = Shape<start=0, end=1>(x) v = Concat<axis=0>(a, k, s)", ["B", 2, "B", "S", 8]),
        ("s = Shape<start=0, end=1>(x) v = Mul(s, k)", ["2*B"]),
        ("s = Shape<start=2>(x) v = Div(s, k)", [4]),
        ("s = Shape(x) v = Neg(s)", ["-1*B", "-1*S", -8]),
        ("s = Shape(x) v = ReduceProd(s)", ["8*B*S"]),
        ("s = Shape(x) c = Cast<to=6>(s) v = Cast<to=7>(c)", ["B", "S", 8]),
    ],
)
def test_shape_computations(body: str, expected: list[int | str]) -> None:
    found = evaluate(inferred(body, CONSTS)["v"])
    assert found is not None
    assert [s.dim for s in found] == expected


def test_unknown_dimensions_are_different() -> None:
    values = inferred("v = Add(x, w)", given="float[?,4] x, float[?,4] w")
    assert sizes(values["x"]) is not None and sizes(values["x"]) != sizes(values["w"])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("{0, 0, 2, 4}", ["B", "S", 2, 4]),
        ("{0, -1, 4, 2}", ["B", "S", 4, 2]),
        ("{-1, 1, 1, 8}", ["B*S", 1, 1, 8]),
        ("{0, 5, 5, 5}", ["B", 5, 5, 5]),
    ],
)
def test_reshape_targets(target: str, expected: list[int | str]) -> None:
    values = inferred("v = Reshape(x, t)", f"int64[4] t = {target}")
    node = values["v"].producer()
    assert node is not None
    found = reshaped(node)
    assert found is not None
    assert [s.dim for s in found] == expected


def test_a_target_that_does_not_divide_is_unknown() -> None:
    values = inferred("v = Reshape(x, t)", "int64[2] t = {-1, 3}")
    node = values["v"].producer()
    assert node is not None and reshaped(node) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("s = Shape(x) v = Reshape(x, s)", ["B", "S", 8]),
        ("v = MatMul(x, w)", ["B", "S", 3]),
        ("v = Transpose(x)", [8, "S", "B"]),
        ("n = Neg(x) v = Add(n, x)", ["B", "S", 8]),
        ("s = Shape<start=1, end=2>(x) l = Squeeze(s) v = Range(zero, l, one)", ["S"]),
        ("s = Shape<start=1, end=2>(x) f = Concat<axis=0>(s, s) v = Expand(c, f)", ["S", "S"]),
        ("v = Unsqueeze(x, at)", ["B", 1, "S", 8]),
        ("u = Unsqueeze(x, at) v = Squeeze(u, at)", ["B", "S", 8]),
        ("s = Shape<start=1, end=2>(x) n = Neg(s) v = Slice(x, n, all, at)", ["B", "S", 8]),
        ("v = ReduceMean(x, at)", ["B", 1, 8]),
        ("v = ReduceMean<keepdims=0>(x, at)", ["B", 8]),
        ("v = Concat<axis=-1>(x, x)", ["B", "S", 16]),
        ("v = Concat<axis=1>(p, x)", ["B", "P + S", 8]),
        ("v = Concat<axis=1>(one_row, x)", ["B", "S + 1", 8]),
        ("s = Shape<start=2>(x) h = Div(s, two) v = Slice(x, zero1, h, last)", ["B", "S", 4]),
        ("s = Shape<start=2>(x) h = Div(s, two) v = Slice(x, h, all, last)", ["B", "S", 4]),
        ("s = Shape<start=1, end=2>(x) v = Slice(table, zero1, s, zero1)", ["S", 8]),
        ("v = Flatten<axis=2>(x)", ["B*S", 8]),
        ("s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, two) v = Tile(w, t)", ["8*B", 6]),
        ("s = Shape(x) v = ConstantOfShape(s)", ["B", "S", 8]),
        ('v = Einsum<equation="bse,ef->bfs">(x, w)', ["B", 3, "S"]),
        (
            "s = Shape(x) o = ConstantOfShape<value = int64[1] {1}>(three) c0 = Equal(s, minus)"
            " t = Where(c0, o, s) v = Expand(c, t)",
            ["B", "S", 8],
        ),
    ],
)
def test_names_survive_inference(body: str, expected: list[int | str]) -> None:
    consts = (
        "int64 zero = {0}, int64 one = {1}, int64[1] at = {1}, float c = {1.0}, int64[1] all = {9223372036854775807},"
        "int64[1] zero1 = {0}, int64[1] two = {2}, int64[1] last = {2}, int64[1] three = {3}, "
        "int64[3] minus = {-1, -1, -1}"
    )
    given = "float[B,S,8] x, float[8,3] w, float[B,P,8] p, float[B,1,8] one_row, float[64,8] table"
    values = inferred(body, consts, given)
    assert dims(values["v"]) == expected


def test_scattering_keeps_the_shape() -> None:
    model = parsed("""
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S] x, int64[N,1] rows, float[N,S] values) => (float[B,S] y)
{ a = ScatterND(x, rows, values) y = Abs(a) }
""")
    infer(model)
    assert dims(model.graph[0].outputs[0]) == ["B", "S"]
