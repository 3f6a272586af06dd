"""The engine: what a pattern matches, why it does not, and what a rewrite leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnxsmith.passes import lift
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, match
from onnxsmith.passes.engine.mismatch import CODES, Mismatch
from onnxsmith.passes.engine.names import Names, name_nodes
from onnxsmith.passes.engine.pattern import attr, either, trace
from onnxsmith.passes.engine.provenance import common_module, module_of, origins, rule_of
from onnxsmith.passes.engine.require import dtype, same_dtype, scalar_constant, shapes
from onnxsmith.passes.engine.rewrite import Rewriter, Site
from onnxsmith.passes.engine.rule import Rule
from tests import golden
from tests.toy import parsed


def graph(
    body: str, given: str = "float[N,4] x, float[N,4] z", consts: str = "", result: str = "float[N,4] y"
) -> ir.Model:
    consts = f"<{consts}>" if consts else ""
    model = parsed(f'<ir_version: 10, opset_import: ["" : 23]> g ({given}) => ({result}) {consts} {{ {body} }}')
    name_nodes(model)
    return model


def last(model: ir.Model) -> ir.Node:
    return model.graph[-1]


def matched(pattern: Any, model: ir.Model) -> Match:
    found = match(trace(pattern), last(model))
    assert isinstance(found, Match), str(found)
    return found


def mismatch(pattern: Any, model: ir.Model) -> Mismatch:
    found = match(trace(pattern), last(model))
    assert isinstance(found, Mismatch)
    return found


def silu(op: Any, x: Any) -> Any:
    return op.Mul(x, op.Sigmoid(x))


@pytest.mark.parametrize("order", ["x, s", "s, x"])
def test_commuted_operands(order: str) -> None:
    model = graph(f"s = Sigmoid(x) y = Mul({order})")
    assert matched(silu, model)["x"] is model.graph.inputs[0]


def test_division_does_not_commute() -> None:
    found = mismatch(lambda op, x: op.Div(x, op.Sigmoid(x)), graph("s = Sigmoid(x) y = Div(s, x)"))
    assert (found.code, found.matched) == ("op-type", 1)


def test_a_name_stands_for_one_value() -> None:
    found = mismatch(silu, graph("s = Sigmoid(z) y = Mul(x, s)"))
    assert (found.code, found.matched) == ("same-value", 2)


def test_either_prefers_its_first_choice_and_says_which_held() -> None:
    def pattern(op: Any, x: Any) -> Any:
        return op.Neg(either("inner", sigmoid=op.Sigmoid(x), tanh=op.Tanh(x), any=x))

    tags = [matched(pattern, graph(f"s = {op}(x) y = Neg(s)")).tag("inner") for op in ("Sigmoid", "Tanh", "Abs")]
    assert tags == ["sigmoid", "tanh", "any"]


def test_a_requirement_is_asked_about_every_way_to_match() -> None:
    rule = Rule("r", lambda op, x, s: op.Mul(x, s), lambda op, m: m["x"], (scalar_constant("s"),))
    for order in ("x, half", "half, x"):
        found = rule.match(last(graph(f"y = Mul({order})", consts="float half = {0.5}")))
        assert isinstance(found, Match) and found.scalar("s") == 0.5


def test_attributes_are_compared_with_their_defaults_and_remembered() -> None:
    def pattern(op: Any, x: Any) -> Any:
        return op.Softmax(x, axis=attr("axis"))

    assert matched(pattern, graph("y = Softmax(x)")).attribute("axis") == -1
    assert matched(pattern, graph("y = Softmax<axis=0>(x)")).attribute("axis") == 0
    found = mismatch(lambda op, x: op.Softmax(x, axis=-1), graph("y = Softmax<axis=0>(x)"))
    assert str(found) == "attribute: expected axis=-1, found axis=0"


@pytest.mark.parametrize(
    ("const", "holds"),
    [
        ("float c = {1.4142135}", True),
        ("float c = {1.41422}", True),
        ("float c = {1.4143}", False),
        ("float[1] c = {1.4142135}", True),
        ("float[1,1] c = {1.4142135}", True),
        ("float[1,1,1] c = {1.4142135}", False),
        ("float[2] c = {1.4142135, 1.4142135}", False),
    ],
)
def test_constants_hold_within_rounding_and_add_no_dimensions(const: str, holds: bool) -> None:
    model = graph("y = Div(z, c)", consts=const)
    assert isinstance(match(trace(lambda op, x: op.Div(x, 2**0.5)), last(model)), Match) == holds


def test_a_graph_input_with_a_default_is_no_constant() -> None:
    model = graph("y = Mul(x, c)", given="float[N,4] x, float c = {2.0}")
    assert mismatch(lambda op, x: op.Mul(x, 2.0), model).code == "constant"


def test_the_furthest_mismatch_wins_and_points_at_its_line() -> None:
    def pattern(op: Any, x: Any) -> Any:
        far = op.Neg(op.Sigmoid(op.Tanh(x)))  # the line that fails
        return op.Abs(either("way", near=op.Erf(x), far=far))

    found = mismatch(pattern, graph("t = Exp(x) s = Sigmoid(t) n = Neg(s) y = Abs(n)"))
    assert (found.code, found.expected, found.found, found.matched) == ("op-type", "Tanh", "Exp", 3)
    assert found.line.startswith(f"{Path(__file__).name}:") and found.line.endswith("# the line that fails")
    assert found.where == "Exp"


def test_equally_close_alternatives_are_told_together() -> None:
    def pattern(op: Any, x: Any) -> Any:
        return op.Neg(either("inner", a=op.Sigmoid(x), b=op.Tanh(x), c=op.Sigmoid(x)))

    assert str(mismatch(pattern, graph("s = Exp(x) y = Neg(s)"))) == "op-type: expected Sigmoid or Tanh, found Exp"


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("s = Sigmoid(x) y = Mul(x, s)", "float[N,4] y, float[N,4] s"),
        ("s = Sigmoid(x) o = Abs(s) y = Mul(x, s)", "float[N,4] y, float[N,4] o"),
    ],
    ids=["a graph output", "another user"],
)
def test_a_value_that_escapes(body: str, result: str) -> None:
    assert mismatch(silu, graph(body, result=result)).code == "escapes"


def test_optional_inputs_and_arity() -> None:
    assert mismatch(lambda op, x, a: op.ReduceSum(x, a), graph("y = ReduceSum(x)")).code == "optional-input"
    assert matched(lambda op, x: op.ReduceSum(x, None), graph("y = ReduceSum(x)"))["x"].name == "x"
    assert mismatch(lambda op, x: op.Max(x), graph("y = Max(x, z)")).code == "arity"


def test_a_shared_node_is_one_node() -> None:
    def pattern(op: Any, x: Any) -> Any:
        t = op.Tanh(x)
        return op.Add(t, op.Neg(t))

    assert isinstance(match(trace(pattern), last(graph("t = Tanh(x) n = Neg(t) y = Add(t, n)"))), Match)
    found = mismatch(pattern, graph("t = Tanh(x) u = Tanh(x) n = Neg(u) y = Add(t, n)"))
    assert found.code == "same-node"


def both(op: Any, x: Any) -> Any:
    t = op.Tanh(x)
    return op.Neg(t), op.Abs(t)


def test_a_rewrite_of_two_outputs_leaves_the_graph_sorted() -> None:
    rule = Rule("both", both, lambda op, m: (op.Sin(m["x"]), op.Cos(m["x"])))
    model = graph("t = Tanh(x) y = Neg(t) u = Exp(y) v = Abs(t)", result="float[N,4] u, float[N,4] v")
    rewriter = Rewriter([rule])
    assert rewriter(model)
    assert rewriter.applied == [Site("both", "y")]
    assert sorted(n.op_type for n in model.graph) == ["Cos", "Exp", "Sin"]
    seen = set(model.graph.inputs)
    for node in model.graph:
        assert all(v in seen for v in node.inputs)
        seen.update(node.outputs)
    assert [v.name for v in model.graph.outputs] == ["u", "v"]


QUICK = Rule("quick", silu, lambda op, m: op.Swish(op.Identity(m["x"])))


def test_new_nodes_say_what_they_stand_for() -> None:
    model = graph("s = Sigmoid(x) y = Mul(x, s)")
    for node, scope in zip(model.graph, ("layer.0.mlp.act", "layer.0.mlp"), strict=True):
        node.metadata_props["pkg.torch.onnx.name_scopes"] = f"['', 'layer', '{scope}', '{node.name}']"
    Rewriter([QUICK])(model)
    for node in model.graph:
        assert (rule_of(node), origins(node)) == ("quick", ["Mul", "Sigmoid"])
        assert module_of(node) == common_module([node]) == "layer.0.mlp"


def test_provenance_survives_a_second_rewrite() -> None:
    model = graph("s = Sigmoid(x) t = Mul(x, s) y = Neg(t)")
    again = Rule("again", lambda op, x: op.Neg(op.Swish(op.Identity(x))), lambda op, m: op.Abs(m["x"]))
    Rewriter([QUICK, again])(model)
    (node,) = model.graph
    assert (rule_of(node), origins(node)) == ("again", ["Neg", "Mul", "Sigmoid"])


def test_new_names_never_collide() -> None:
    model = graph(
        "Swish_out = Sigmoid(x) Identity_out = Mul(x, Swish_out) [Swish] y = Neg(Identity_out)",
        consts="float Swish_out_1 = {1.0}",
    )
    Rewriter([QUICK])(model)
    values = [v.name for n in model.graph for v in n.outputs] + list(model.graph.initializers)
    assert len(values) == len(set(values))
    nodes = [n.name for n in model.graph]
    assert len(nodes) == len(set(nodes))


def test_constants_get_fresh_names() -> None:
    model, op = graph("y = Neg(x)", consts="float scale = {1.0}"), Builder()
    made = [op.constant(2.0, "scale", "float32") for _ in range(2)]
    Names(model).adopt(model.graph, op)
    assert [v.name for v in made] == ["scale_1", "scale_2"]
    assert set(model.graph.initializers) == {"scale", "scale_1", "scale_2"}


def test_every_node_gets_a_name_of_its_own() -> None:
    model = parsed(
        """<ir_version: 10, opset_import: ["" : 23]>
        g (float x) => (float y) { [a] s = Neg(x) [a] t = Neg(s) y = Neg(t) }"""
    )
    name_nodes(model)
    assert [n.name for n in model.graph] == ["a", "a_1", "Neg"]


def test_denied_sites_are_left_alone() -> None:
    model = graph("s = Sigmoid(x) t = Mul(x, s) u = Sigmoid(t) y = Mul(t, u)")
    rewriter = Rewriter([QUICK], denied={Site("quick", "t")})
    rewriter(model)
    assert rewriter.applied == [Site("quick", "y")]


@pytest.mark.parametrize(
    ("requirement", "code"),
    [
        (shapes(x="N 4"), ""),
        (shapes(x="... D", z="... D"), ""),
        (shapes(x="A B", z="B A"), "shape"),
        (shapes(x="_ 5"), "shape"),
        (shapes(x="A B C"), "rank"),
        (shapes(w="A B"), "unknown-dim"),
        (shapes(absent="A B"), ""),
        (dtype("x", ir.DataType.FLOAT16), "dtype"),
        (same_dtype("x", "z"), ""),
        (same_dtype("x", "i"), "dtype"),
        (scalar_constant("x"), "constant"),
    ],
)
def test_requirements(requirement: Any, code: str) -> None:
    model = graph("y = Neg(x)", given="float[N,4] x, float[N,4] z, float[?,4] w, int64[N,4] i")
    found = requirement(Match(last(model), {str(v.name): v for v in model.graph.inputs}))
    assert (found.code if found is not None else "") == code


@pytest.mark.parametrize(
    ("case", "rule", "code"),
    [
        ("scale/computed", "scores-scale", "constant"),
        ("scale/divided-by-zero", "scores-scale", "constant"),
        ("scale/escapes", "scores-scale", "escapes"),
        ("scale/integers", "scores-scale", "dtype"),
        ("scale/nothing-to-move", "scores-scale", "op-type"),
        ("scale/on-weights", "scores-scale", "constant"),
        ("scale/per-channel", "scores-scale", "constant"),
        ("scale/widened", "scores-scale", "rank"),
        ("scale/reshape-of-integers", "view-scale", "dtype"),
        ("heads/escapes", "attention-heads", "escapes"),
        ("heads/four-dimensions", "attention-heads", "rank"),
        ("heads/merged-otherwise", "attention-heads", "shape"),
        ("heads/not-the-last-dimension", "attention-heads", "shape"),
        ("mask-shape/full", "attention-mask", "shape"),
        ("mask-shape/one-query", "attention-mask", "shape"),
        ("norm/residual-is-no-bias", "layer-norm-bias", "op-type"),
    ],
)
def test_rules_without_an_anchor_say_why_too(case: str, rule: str, code: str) -> None:
    model = golden.read(golden.CASES / f"{case}.txt").model()
    whys = [r.match(n) for r in lift.RULES if r.name == rule for n in model.graph]
    found = [w for w in whys if isinstance(w, Mismatch)]
    assert len(found) == len(whys)
    assert max(found, key=lambda w: w.matched).code == code


def test_codes_are_explained() -> None:
    assert all(text and text[0].islower() for text in CODES.values())
