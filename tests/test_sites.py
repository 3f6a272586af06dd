"""Sites are found without the rules, and each says what became of it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxsmith.compiler import pipeline, sites
from onnxsmith.compiler.pipeline import Pass
from onnxsmith.compiler.sites import Site
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from tests import golden
from tests.toy import encoder, parsed

STEPS = pipeline.passes(target("cpu", "fp32"), "fp32")


def settled(model: object, steps: list[Pass] = STEPS) -> list[Site]:
    canonical = canonicalize(model)  # type: ignore[arg-type]
    anchors = sites.find(canonical)
    outcome = pipeline.run(canonical, steps)
    return sites.settle(anchors, outcome.model, outcome.remarks)


def case(name: str) -> list[Site]:
    return settled(golden.read(golden.CASES / f"{name}.txt").model())


def test_every_site_of_an_encoder_is_fused() -> None:
    found = settled(encoder())
    assert [(s.kind, s.status, s.rule) for s in found] == [
        ("norm", "fused", "layer-norm + layer-norm-scale + layer-norm-bias"),
        ("attention", "fused", "attention + attention-heads + bias-free-keys + bias-behind-values"),
        ("norm", "fused", "layer-norm + layer-norm-scale + layer-norm-bias"),
        ("activation", "fused", "gelu"),
        ("norm", "fused", "layer-norm + layer-norm-scale + layer-norm-bias"),
    ]
    assert found[1].detail == "2 heads of 16, mask padding of attention_mask"
    assert [s.detail for s in found if s.kind != "attention"] == [
        "LayerNormalization over 32",
        "LayerNormalization over 32",
        "Gelu over 64",
        "LayerNormalization over 32",
    ]


def test_without_rules_every_site_is_missed() -> None:
    found = settled(encoder(), [])
    assert [s.kind for s in found] == ["norm", "attention", "norm", "activation", "norm"]
    assert {(s.status, s.reason) for s in found} == {("missed", "no rule knows this form")}


def test_a_compiled_model_is_already_fused() -> None:
    compiled = pipeline.run(canonicalize(encoder()), STEPS).model
    for node in compiled.graph:
        node.metadata_props.clear()  # as another tool would have left it
    assert {(s.status, s.rule) for s in settled(compiled)} == {("already fused", None)}


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("attention/another-axis", "attention", "attribute"),
        ("attention/probabilities-escape", "attention", "escapes"),
        ("attention/lengths-unknown", "attention", "unknown-dim"),
        ("norm/epsilon-computed", "", ""),
        ("norm/epsilon-zero", "norm", "constant"),
        ("norm/unknown-width", "norm", "unknown-dim"),
        ("norm/double", "norm", "dtype"),
    ],
)
def test_a_missed_site_says_why(name: str, kind: str, reason: str) -> None:
    found = case(name)
    assert [(s.kind, s.status) for s in found] == ([(kind, "missed")] if kind else [])
    assert all(str(s.reason).startswith(f"{reason}: ") for s in found)


def test_no_operator_has_its_epsilon_outside_the_root() -> None:
    (site,) = case("norm/epsilon-outside")
    assert (site.kind, site.status) == ("norm", "inexpressible")
    assert site.reason == "the epsilon is outside the root: no operator computes that"


def test_a_softmax_without_products_is_no_attention() -> None:
    model = parsed("""
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S,8] x) => (float[B,S,8] y) { y = Softmax(x) }
""")
    assert settled(model) == []


def test_a_curve_that_gates_nothing_is_no_activation() -> None:
    model = parsed(
        """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S,8] x) => (float[B,S,8] y) {
    a = MatMul(x, w)
    t = Tanh(a)
    y = MatMul(t, w)
}
""",
        {"w": [[0.1] * 8] * 8},
    )
    assert settled(model) == []


def test_an_activation_whose_values_are_rounded_is_one() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 23]>
    g (float[B,S,8] x) => (float[B,S,8] y)
    {
        a = MatMul(x, w)
        h = Relu(a)
        q = QuantizeLinear(h, scale, zero)
        d = DequantizeLinear(q, scale, zero)
        y = MatMul(d, w)
    }
    """
    weights = {"w": np.eye(8), "scale": np.array(0.1), "zero": np.array(0, np.uint8)}
    assert [(site.kind, site.fused) for site in sites.find(parsed(text, weights))] == [("activation", True)]


@pytest.mark.parametrize(("second", "found"), [("QuantizeLinear(g, scale, zero)", ["activation"]), ("Cast(g)", [])])
def test_an_activation_with_channels_added_is_one(second: str, found: list[str]) -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 23]>
    g (float[B,S,8] x) => (float[B,S,9] y)
    {{
        a = MatMul(x, w)
        h = Relu(a)
        q = QuantizeLinear(h, scale, zero)
        g = Gather <axis = 2> (h, channel)
        e = {second.replace("Cast(g)", "Cast <to = 2> (g)")}
        c = Concat <axis = 2> (q, e)
        d = DequantizeLinear(c, scale, zero)
        y = MatMul(d, w9)
    }}
    """
    weights = {"w": np.eye(8), "w9": np.eye(9), "scale": np.array(0.1), "zero": np.array(0, np.uint8)}
    model = parsed(text, {**weights, "channel": np.array([3])})
    assert [site.kind for site in sites.find(model)] == found


def test_the_module_path_names_the_site() -> None:
    model = canonicalize(encoder())
    softmax = next(n for n in model.graph if n.op_type == "Softmax")
    softmax.metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'layer.0.attention', 'softmax']"
    anchors = sites.find(model)
    assert [a.where for a in anchors if a.kind == "attention"] == ["layer.0.attention"]


def test_sites_inside_a_branch_are_found() -> None:
    assert [s.kind for s in case("attention/inside-if")] == ["attention"]
    assert [s.status for s in case("attention/inside-if")] == ["fused"]


def test_a_norm_of_weights_is_a_weight() -> None:
    text = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S,8] x) => (float[B,S,8] y) { table = LayerNormalization(w, scale) y = MatMul(x, table) }
"""
    model = parsed(text, {"w": np.eye(8), "scale": np.ones(8)})
    assert sites.find(model) == []
