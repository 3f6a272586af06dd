"""Raising the opset keeps what the converter would drop, and says what cannot be read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler.session import run_model
from onnxsmith.errors import BadInput
from onnxsmith.passes.canonicalize import canonicalize, convert
from onnxsmith.passes.canonicalize.opset import OPSET
from tests.toy import encoder, parsed


def at(opset: int) -> ir.Model:
    return parsed(f'<ir_version: 7, opset_import: ["" : {opset}]> g (float[N,4] x) => (float[N,4] y) {{ y = Relu(x) }}')


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 22])
def test_older_opsets_are_raised(opset: int) -> None:
    assert convert(at(opset)).opset_imports[""] == OPSET


@pytest.mark.parametrize("opset", [23, 24, 25])
def test_newer_opsets_stay(opset: int) -> None:
    assert convert(at(opset)).opset_imports[""] == opset


@pytest.mark.parametrize("opset", [7, 26, 99])
def test_others_are_bad_input(opset: int) -> None:
    model = at(13)
    model.graph.opset_imports[""] = opset
    with pytest.raises(BadInput, match=f"at opset {opset}; opsets 9 to 25 can be read"):
        convert(model)


def test_no_opset_is_bad_input() -> None:
    model = at(13)
    del model.graph.opset_imports[""]
    with pytest.raises(BadInput, match="imports no ONNX opset"):
        convert(model)


def product(output: str = "y = MatMul(x, w)", given: str = "float[N,64] x") -> ir.Model:
    text = f'<ir_version: 7, opset_import: ["" : 13]> g ({given}) => (float[N,64] y) {{ {output} }}'
    return parsed(text, {"w": np.ones((64, 64))})


def test_a_graph_that_the_converter_refuses_is_bad_input_and_keeps_its_weights() -> None:
    model = product("p = MatMul(x, w) y = Nonsense(p)")
    with pytest.raises(BadInput, match="cannot be raised from opset 13"):
        convert(model)
    assert list(model.graph.initializers) == ["w"] and [v.name for v in model.graph.inputs] == ["x"]


def test_names_metadata_and_header_are_kept() -> None:
    model = encoder()
    model.producer_name, model.metadata_props["origin"] = "somewhere", "here"
    for i, node in enumerate(model.graph):
        node.name, node.metadata_props["place"] = f"n{i}", str(i)
    converted = convert(model)
    assert (converted.producer_name, converted.metadata_props["origin"]) == ("somewhere", "here")
    places = {n.name: n.metadata_props.get("place") for n in converted.graph}
    assert all(places[f"n{i}"] == str(i) for i in range(model.graph.num_nodes()))


def test_large_weights_are_not_copied() -> None:
    model = product()
    weight = model.graph.initializers["w"].const_value
    converted = convert(model)
    assert converted.graph.initializers["w"].const_value is weight
    assert [v.name for v in converted.graph.inputs] == ["x"]


def test_a_large_default_stays_a_default() -> None:
    model = product(given="float[N,64] x, float[64,64] w")
    converted = convert(model)
    assert [v.name for v in converted.graph.inputs] == ["x", "w"]
    assert list(converted.graph.initializers) == ["w"]


@pytest.mark.parametrize("opset", [13, 18, 23])
def test_the_canonical_graph_computes_the_same(opset: int) -> None:
    model = parsed(f"""
<ir_version: 7, opset_import: ["" : {opset}]>
g (float[N,4] x) => (float[N,4] y, float[N,4] z, float[N,4] same) <float half = {{0.5}}> {{
    a = Mul(x, half)
    b = Mul(x, half)
    y = Identity(a)
    z = Identity(b)
    same = Identity(x)
}}
""")
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
    before, after = run_model(model)(feeds), run_model(canonicalize(model))(feeds)
    assert list(after) == ["y", "z", "same"]
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_every_canonical_node_has_its_own_name() -> None:
    model = encoder()
    for node in model.graph:
        node.name = "twin"
    names = [n.name for n in canonicalize(model).graph]
    assert len(names) == len(set(names))
