"""Graphs that are no Transformer, or no graph at all: one line that says why, or a model that means the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.command import Invoke, assert_refused, snapshot

_HEAD = '<ir_version: 10, opset_import: ["" : {opset}]>\n'
_CYCLIC_FUNCTIONS = """
<ir_version: 10, opset_import: ["" : 18, "local" : 1]>
g (float[N, 4] x) => (float[N, 4] y) { y = local.f(x) }
<domain: "local", opset_import: ["" : 18, "local" : 1]> f (a) => (b) { b = local.h(a) }
<domain: "local", opset_import: ["" : 18, "local" : 1]> h (a) => (b) { b = local.f(a) }
"""


def graph(body: str, opset: int = 18) -> str:
    return f"{_HEAD.format(opset=opset)} g (float[N, 4] x) => (float[N, 4] y) {{ {body} }}"


def branch(body: str, rest: str = "") -> str:
    """``body`` gives z in one branch of an If."""
    other = "no () => (float[N, 4] w) { w = Neg(x) }"
    text = f"y = If (c) <then_branch = yes () => (float[N, 4] z) {{ {body} }}, else_branch = {other}> {rest}"
    return graph(text).replace("x) =>", "x, bool c) =>")


REFUSED = {
    "cyclic functions": (_CYCLIC_FUNCTIONS, "circle: local.f -> local.h -> local.f"),
    "cycle": (graph("a = Add(x, b) b = Relu(a) y = Neg(b)"), "node 'a' (Add) -> node 'b' (Relu) -> node 'a' (Add)"),
    "cycle through a branch": (branch("z = Neg(v)", "v = Relu(y)"), "node 'y' (If)"),
    "undefined value": (graph("y = Add(x, nobody)"), "node 'y' (Add) reads 'nobody', which nothing defines"),
    "undefined in a branch": (branch("z = Add(x, nobody)"), "node 'z' (Add) reads 'nobody'"),
    "undefined output": (graph("z = Relu(x)"), "output 'y' is given by no node"),
    "defined twice": (graph("y = Relu(x) y = Neg(x)"), "'y' is defined twice, the second time by node 'y' (Neg)"),
    "unnamed domain": (graph("y = acme.Frob(x)"), "'acme', which opset_import does not name"),
    "no such operator": (graph("y = Frob(x)"), "node 'y' (Frob) is an operator that no ONNX opset has"),
    "newer than its opset": (graph("y = RMSNormalization(x, x)"), "needs opset 23, and the file is stamped opset 18"),
    "newer in a branch": (branch("z = Gelu(x)"), "node 'z' (Gelu) needs opset 20"),
    "opset 7": (graph("y = Relu(x)", 7), "at opset 7; opsets 9 to 25"),
    "opset 99": (graph("y = Relu(x)", 99), "at opset 99; opsets 9 to 25"),
}


@pytest.mark.parametrize("text, mention", REFUSED.values(), ids=REFUSED)
def test_refused(invoke: Invoke, tmp_path: Path, text: str, mention: str) -> None:
    (tmp_path / "in.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    before = snapshot(tmp_path)
    assert_refused(invoke("optimize", tmp_path / "in.onnx", "-o", tmp_path / "out"), mention)
    assert_refused(invoke("explain", tmp_path / "in.onnx"), mention)
    assert snapshot(tmp_path) == before


def test_what_torch_stamps_18_when_asked_for_26(invoke: Invoke, tmp_path: Path) -> None:
    text = f"{_HEAD.format(opset=18)} g (float[1, 2, 3, 4] x) => (float[1, 2, 3, 4] y) {{ y = Attention(x, x, x) }}"
    (tmp_path / "in.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    assert_refused(invoke("explain", tmp_path / "in.onnx"), "(Attention) needs opset 23", "asked for 26")


def weight(name: str, *shape: int) -> TensorProto:
    data = np.random.default_rng(len(name)).normal(0, 0.3, shape).astype(np.float32)
    return numpy_helper.from_array(data, name)


def built(
    nodes: list[onnx.NodeProto],
    x: list[int | str],
    outputs: dict[str, list[int | str]],
    weights: list[TensorProto],
    opsets: dict[str, int] | None = None,
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        weights,
    )
    imports = [helper.make_opsetid(*o) for o in (opsets or {"": 18}).items()]
    return helper.make_model(made, opset_imports=imports, ir_version=10)


def resnet() -> onnx.ModelProto:
    """Two convolutions with batch norms, a residual, and a classifier."""
    normal = ["s", "b", "m", "v"]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", *normal], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c2", *normal], ["n2"]),
        helper.make_node("Add", ["n2", "c1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "bias"], ["g"], transB=1),
        helper.make_node("Softmax", ["g"], ["y"], axis=1),
    ]
    weights = [weight("w1", 8, 3, 3, 3), weight("w2", 8, 8, 3, 3), weight("fc", 5, 8), weight("bias", 5)]
    weights += [weight("s", 8), weight("b", 8), weight("m", 8)]
    weights += [numpy_helper.from_array(np.ones(8, np.float32), "v")]
    return built(nodes, ["N", 3, 16, 16], {"y": ["N", 5]}, weights)


def trees() -> onnx.ModelProto:
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * 3,
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[1, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, -2.0],
    )
    return built([node], ["N", 4], {"y": ["N", 1]}, [], {"ai.onnx.ml": 3, "": 18})


def lstm() -> onnx.ModelProto:
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y", "", "cell"], hidden_size=6)
    weights = [weight("w", 1, 24, 4), weight("r", 1, 24, 6), weight("b", 1, 48)]
    return built([node], ["S", "B", 4], {"y": ["S", 1, "B", 6], "cell": [1, "B", 6]}, weights)


def no_width() -> onnx.ModelProto:
    """A product with a weight of no columns."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Concat", ["a", "x"], ["y"], axis=1)]
    return built(nodes, ["N", 4], {"y": ["N", 4]}, [weight("w", 4, 0)])


def text(signature: str, body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{_HEAD.format(opset=18)} g {signature} {{ {body} }}")


_X = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
KEPT: dict[str, tuple[onnx.ModelProto, dict[str, Any]]] = {
    "resnet": (resnet(), {"x": np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)}),
    "trees": (trees(), {"x": _X}),
    "lstm": (lstm(), {"x": np.random.default_rng(2).standard_normal((5, 3, 4)).astype(np.float32)}),
    "no width": (no_width(), {"x": _X}),
    "no rows": (text("(float[N, 0] x) => (float[N, 0] y)", "y = Softmax<axis = -1>(x)"), {"x": _X[:, :0]}),
    "unsorted": (onnx.parser.parse_model(graph("y = Relu(a) a = Sigmoid(x)")), {"x": _X}),
    "sequence given": (
        text("(float[N, 4] x) => (seq(float[N, 4]) s)", "y = Relu(x) s = SequenceConstruct(x, y)"),
        {"x": _X},
    ),
    "sequence taken": (
        text("(seq(float[N, 4]) s, int64 i) => (float[N, 4] y)", "z = SequenceAt(s, i) y = Relu(z)"),
        {"s": [_X, -_X], "i": np.array(1)},
    ),
    "optional": (
        text("(optional(float[N, 4]) o) => (float[N, 4] y)", "z = OptionalGetElement(o) y = Relu(z)"),
        {"o": _X},
    ),
    "strings": (
        text("(string[N] x) => (string[M] y)", 'k = Constant<value_strings = ["pad"]>() y = Concat<axis = 0>(k, x)'),
        {"x": np.array(["pad", "a"], dtype=object)},
    ),
    "layer norm of an old opset": (
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 13]> g (float[N, 4] x) => (float[N, 4] y) '
            "<float[4] s = {1, 2, 3, 4}> { y = LayerNormalization<axis = -1, epsilon = 0.1>(x, s) }"
        ),
        {"x": _X},
    ),
    "ONNX Runtime's RMS norm": (
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 14]> g (float[N, 4] x) => (float[N, 4] y) '
            "<float[4] s = {1, 2, 3, 4}> { y = SimplifiedLayerNormalization<axis = -1, epsilon = 0.1>(x, s) }"
        ),
        {"x": _X},
    ),
}


def run(path: Path, feeds: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    results: list[Any] = session.run(None, feeds)
    return results


@pytest.mark.parametrize("model, feeds", KEPT.values(), ids=KEPT)
def test_kept(invoke: Invoke, tmp_path: Path, model: onnx.ModelProto, feeds: dict[str, Any]) -> None:
    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    source.write_bytes(model.SerializeToString())
    result = invoke("optimize", source, "-o", output)
    assert result.code == 0, result.err
    onnx.checker.check_model(output)
    for own, other in zip(run(source, feeds), run(output, feeds), strict=True):
        if isinstance(own, np.ndarray) and own.dtype == np.float32:
            np.testing.assert_allclose(other, own, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(other, own)
    assert invoke("explain", source).code == 0


def test_unknown_domain_is_untouched(invoke: Invoke, tmp_path: Path) -> None:
    text = graph("a = Relu(x) b = acme.Frob<k: int = 3>(a) c = acme.Frob(a) y = Add(b, c)")
    model = onnx.parser.parse_model(text.replace("18]", '18, "acme" : 3]'))
    (tmp_path / "in.onnx").write_bytes(model.SerializeToString())
    result = invoke("optimize", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["parity"]["note"].startswith("not verified: ONNX Runtime refuses the original: ")
    written = onnx.load(tmp_path / "out.onnx")
    assert [(n.domain, n.op_type) for n in written.graph.node].count(("acme", "Frob")) == 2
    assert {o.domain: o.version for o in written.opset_import}["acme"] == 3
