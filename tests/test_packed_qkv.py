"""Products of one input as one: where one is made, where none is, and that it computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler.session import run_model
from onnxsmith.passes.engine.names import name_nodes
from onnxsmith.passes.engine.provenance import origins, rule_of
from onnxsmith.passes.lower.packed import GATE, QKV, packed_gates, packed_qkv
from tests.test_cache_pass import check, compiled, plain
from tests.toy import parsed

_ATTENTION = """
<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
g (float[1,S,64] x, float[1,S,64] other, float[1,2,P,16] pk, float[1,2,P,16] pv, int32[1] ends, int32 total)
    => (float[1,S,64] y, float[1,2,T,16] k_all, float[1,2,T,16] v_all%outputs)
{
%products
    y, k_all, v_all = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, k, v, pk, pv, ends, total)
}
"""
_PLAIN = "q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)"
_BIASED = "a = MatMul(x, wq)  b = MatMul(x, wk)  c = MatMul(x, wv)  q = Add(a, bq)  k = Add(bk, b)  v = Add(c, bv)"
_WIDTHS = {"q": 64, "k": 32, "v": 32}


def attention(products: str, outputs: str = "") -> ir.Model:
    rng = np.random.default_rng(0)
    weights = {f"w{n}": rng.normal(0, 0.1, (64, size)).astype(np.float32) for n, size in _WIDTHS.items()}
    biases = {f"b{n}": rng.normal(size=size).astype(np.float32) for n, size in _WIDTHS.items()}
    used = {name: array for name, array in (weights | biases).items() if name in products}
    model = parsed(_ATTENTION.replace("%products", products).replace("%outputs", outputs), used)
    name_nodes(model)
    return model


def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = {"x": (1, 1, 64), "other": (1, 1, 64), "pk": (1, 2, 4, 16), "pv": (1, 2, 4, 16)}
    made = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    return made | {"ends": np.array([4], np.int32), "total": np.array(5, np.int32)}


@pytest.mark.parametrize(("products", "types"), [(_PLAIN, ["MatMul"]), (_BIASED, ["MatMul", "Add"])])
def test_one_product_takes_the_place_of_three(products: str, types: list[str]) -> None:
    before, model = attention(products), attention(products)
    (remark,) = packed_qkv(model)
    assert "1 layers" in remark.reason
    *made, kernel = model.graph
    assert [n.op_type for n in made] == types and kernel.inputs[1] is None and kernel.inputs[2] is None
    assert str(made[-1].outputs[0].shape) == "[1,S,128]"
    assert {rule_of(n) for n in made} == {QKV}
    assert set(origins(made[0])) == {str(n.name) for n in list(before.graph)[:-1]}
    found, expected = run_model(model)(feeds()), run_model(before)(feeds())
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("products", "outputs"),
    [
        (_PLAIN.replace("k = MatMul(x,", "k = MatMul(other,"), ""),
        (_PLAIN, ", float[1,S,32] k"),
        (_PLAIN + "  z = Neg(k)", ", float[1,S,32] z"),
        ("a = MatMul(x, wq)  q = Add(a, bq)  k = MatMul(x, wk)  v = MatMul(x, wv)", ""),
        (_PLAIN.replace("q = MatMul(x, wq)", "q = Mul(x, other)"), ""),
    ],
    ids=["two inputs", "an output", "another reader", "a bias of one", "no product"],
)
def test_left_alone(products: str, outputs: str) -> None:
    model = attention(products, outputs)
    before = [n.op_type for n in model.graph]
    assert packed_qkv(model) == []
    assert [n.op_type for n in model.graph] == before


def test_packed_already() -> None:
    model = attention(_PLAIN)
    packed_qkv(model)
    assert packed_qkv(model) == []


_GATED = """
<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
g (float[1,S,64] x, float[1,S,64] other) => (float[1,S,96] y%outputs)
{
    gate = MatMul(x, wg)
%between
    y = Mul(acted, up)
}
"""
_SILU = "curve = Sigmoid(gate)  acted = Mul(gate, curve)"
_UP = "  up = MatMul(x, wu)"


def feed_forward(between: str, outputs: str = "") -> ir.Model:
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.1, (64, 96)).astype(np.float32) for name in ("wg", "wu")}
    weights |= {"narrow": weights["wu"][:, :1]} if "narrow" in between else {}
    biases = {name: rng.normal(size=96).astype(np.float32) for name in ("bu",) if name in between}
    text = _GATED.replace("%between", between).replace("%outputs", outputs)
    model = parsed(text, weights | biases)
    name_nodes(model)
    return model


@pytest.mark.parametrize(
    "between",
    [_SILU + _UP, "acted = Gelu(gate)" + _UP, _SILU + _UP + "  z = Neg(up)  unused = Add(z, up)"],
    ids=["silu", "gelu", "two readers"],
)
def test_gate_and_up_from_one_product(between: str) -> None:
    before, model = feed_forward(between), feed_forward(between)
    (remark,) = packed_gates(model)
    assert "1 layers" in remark.reason
    product, split, *_ = model.graph
    assert (product.op_type, split.op_type) == ("MatMul", "Split")
    assert [str(v.shape) for v in (*product.outputs, *split.outputs)] == ["[1,S,192]", "[1,S,96]", "[1,S,96]"]
    assert {rule_of(n) for n in (product, split)} == {GATE}
    assert len([n for n in model.graph if n.op_type == "MatMul"]) == 1
    given = {name: array for name, array in feeds().items() if name in ("x", "other")}
    np.testing.assert_allclose(run_model(model)(given)["y"], run_model(before)(given)["y"], rtol=1e-5, atol=1e-6)
    assert packed_gates(model) == []


@pytest.mark.parametrize(
    ("between", "outputs"),
    [
        (_SILU + "  up = MatMul(other, wu)", ""),
        (_SILU + _UP, ", float[1,S,96] up"),
        (_SILU + _UP, ", float[1,S,96] gate"),
        (_SILU + "  plain = MatMul(x, wu)  up = Add(plain, bu)", ""),
        (_SILU + "  up = Neg(gate)", ""),
        ("acted = Sigmoid(gate)  up = Mul(gate, gate)", ""),
        (_SILU + "  up = MatMul(x, narrow)", ""),
    ],
    ids=[
        "two inputs",
        "up is an output",
        "gate is an output",
        "a bias of one",
        "no product",
        "one product",
        "two widths",
    ],
)
def test_gates_left_alone(between: str, outputs: str) -> None:
    model = feed_forward(between, outputs)
    before = [n.op_type for n in model.graph]
    assert packed_gates(model) == []
    assert [n.op_type for n in model.graph] == before


@pytest.mark.parametrize("kind", ["llama", "learned"])
def test_every_layer_of_a_decoder(kind: str) -> None:
    outcome = compiled(plain(kind))
    assert check(plain(kind), outcome).layout == "in-place"
    kernels = [n for n in outcome.model.graph if n.op_type == "GroupQueryAttention"]
    assert len(kernels) == 2 and all(n.inputs[1] is None for n in kernels)
    assert {QKV, GATE} & {r.rule for r in outcome.remarks} == {QKV}
    assert not [v for v in outcome.model.graph.initializers.values() if not v.uses()]


def test_gates_are_packed_in_formats_for_single_tokens() -> None:
    outcome = compiled(plain("llama"), precision="int4")
    assert GATE in {r.rule for r in outcome.remarks}
    products = [n for n in outcome.model.graph if n.op_type == "MatMulNBits"]
    assert len(products) == 2 * 4 + 1, "two layers of qkv, output, gate and up, down; and the head"
