"""Sizes are read from the graph's inputs, whatever tensor's shape an exporter asked for."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxsmith.passes.canonicalize import known, tidy
from onnxsmith.passes.symbolic import infer
from tests.toy import parsed


def fixed(body: str, consts: str = "", given: str = "float[B,S,8] x", result: str = "int64[n] y") -> ir.Graph:
    consts = f"<{consts}>" if consts else ""
    model = parsed(f'<ir_version: 10, opset_import: ["" : 23]> g ({given}) => ({result}) {consts} {{ {body} }}')
    infer(model)
    known.fix(model)
    tidy(model)
    return model.graph


def operators(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]


def test_a_fixed_size_becomes_a_number() -> None:
    graph = fixed(
        "s = Shape(x) w = Gather(s, last) f = Cast<to=1>(w) r = Pow(f, power) y = Mul(x, r)",
        "int64 last = {-1}, float power = {-0.5}",
        result="float[B,S,8] y",
    )
    assert operators(graph) == ["Mul"]
    scale = graph[0].inputs[1]
    assert scale is not None and scale.const_value is not None
    assert scale.const_value.numpy() == pytest.approx(8**-0.5)


def test_a_named_size_is_read_from_the_input_that_has_it() -> None:
    graph = fixed(
        "a = Neg(x) s = Shape<start=1, end=2>(a) y = Expand(one, s)", "int64[1] one = {1}", result="int64[S] y"
    )
    assert operators(graph) == ["Shape", "Expand"]
    assert graph[0].inputs[0] is graph.inputs[0]


def test_a_scalar_stays_a_scalar() -> None:
    graph = fixed(
        "a = Neg(x) s = Shape(a) n = Gather(s, i) y = Range(zero, n, step)",
        "int64 i = {1}, int64 zero = {0}, int64 step = {1}",
        result="int64[S] y",
    )
    assert operators(graph) == ["Shape", "Squeeze", "Range"]
    assert graph[0].inputs[0] is graph.inputs[0]


def test_several_uses_read_the_size_once() -> None:
    graph = fixed(
        "a = Neg(x) s = Shape<start=1, end=2>(a) p = Expand(one, s) b = Abs(x) t = Shape<start=1, end=2>(b)"
        " q = Expand(two, t) y = Add(p, q)",
        "int64[1] one = {1}, int64[1] two = {2}",
        result="int64[S] y",
    )
    assert operators(graph).count("Shape") == 1


@pytest.mark.parametrize(
    "body",
    [
        "n = NonZero(x) s = Shape<start=1, end=2>(n) y = Expand(one, s)",  # no input has this size
        "a = Neg(x) b = Concat<axis=1>(a, a) s = Shape<start=1, end=2>(b) y = Expand(one, s)",  # a sum of two
    ],
)
def test_a_size_of_its_own_is_left_alone(body: str) -> None:
    graph = fixed(body, "int64[1] one = {1}")
    shape = next(node for node in graph if node.op_type == "Shape")
    assert shape.inputs[0] is not None and not shape.inputs[0].is_graph_input()


def test_a_branch_that_compares_a_size_with_itself_is_decided() -> None:
    graph = fixed(
        "a = Neg(x) s = Shape<start=1, end=2>(a) t = Shape<start=1, end=2>(x) same = Equal(s, t) c = Squeeze(same)"
        " y = If(c) <then_branch = t () => (float[B,S,8] p) { p = Abs(x) },"
        " else_branch = e () => (float[B,S,8] q) { q = Exp(x) }>",
        result="float[B,S,8] y",
    )
    assert operators(graph) == ["Abs"]


def test_sizes_of_two_names_may_differ() -> None:
    graph = fixed(
        "s = Shape<end=2>(x) i = Gather(s, zero) j = Gather(s, one) y = Equal(i, j)",
        "int64 zero = {0}, int64 one = {1}",
        result="bool y",
    )
    assert operators(graph)[-1] == "Equal"
