"""An If whose condition is known becomes its branch, and no name means two values then."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.canonicalize.branches import settle
from tests.toy import parsed

GRAPHS = {
    "one": """y = If (yes) <then_branch = a () => (float[B, 4] z) { m = Exp(x) z = Sqrt(m) },
                           else_branch = b () => (float[B, 4] w) { w = Neg(x) }>""",
    "folded": """s = Shape(x) n = Gather(s, one) c = Equal(n, four)
        y = If (c) <then_branch = a () => (float[B, 4] z) { z = Exp(x) },
                    else_branch = b () => (float[B, 4] w) { w = Neg(x) }>""",
    "of shape [1]": """y = If (listed) <then_branch = a () => (float[B, 4] z) { z = Exp(x) },
                                       else_branch = b () => (float[B, 4] w) { w = Neg(x) }>""",
    "nested": """y = If (no) <then_branch = a () => (float[B, 4] w) { w = Neg(x) },
        else_branch = b () => (float[B, 4] z) {
            m = Exp(x)
            i = If (yes) <then_branch = c () => (float[B, 4] j) { k = Sqrt(m) j = Add(k, x) },
                          else_branch = d () => (float[B, 4] l) { l = Neg(m) }>
            z = Mul(i, m) }>""",
    "decided inside": """y = If (yes) <then_branch = a () => (float[B, 4] z) {
            c = Not(no)
            z = If (c) <then_branch = c () => (float[B, 4] j) { j = Exp(x) },
                        else_branch = d () => (float[B, 4] l) { l = Neg(x) }> },
        else_branch = b () => (float[B, 4] w) { w = Neg(x) }>""",
    "names that clash": """
        p = If (yes) <then_branch = a () => (float[B, 4] z) { m = Exp(x) z = Sqrt(m) },
                      else_branch = b () => (float[B, 4] w) { w = Neg(x) }>
        y = If (no) <then_branch = c () => (float[B, 4] z) { z = Abs(p) },
                     else_branch = d () => (float[B, 4] z) { m = Sin(p) z = Cos(m) }>""",
    "a name that is needed inside another": """
        p = If (yes) <then_branch = a () => (float[B, 4] z) { m = Exp(x) z = Sqrt(m) },
                      else_branch = b () => (float[B, 4] w) { w = Neg(x) }>
        y = If (open) <then_branch = c () => (float[B, 4] n) { m = Sin(p) n = Cos(m) },
                       else_branch = d () => (float[B, 4] w) { w = Neg(p) }>""",
    "a name as the If's": """y = If (yes) <then_branch = a () => (float[B, 4] y) { m = Exp(x) y = Sqrt(m) },
                                          else_branch = b () => (float[B, 4] y) { y = Neg(x) }>""",
    "constants inside": """
        p = If (yes) <then_branch = a () => (float[B, 4] z) { k = Constant<value_float = 3.0>() z = Mul(x, k) },
                      else_branch = b () => (float[B, 4] w) { w = Neg(x) }>
        q = If (yes) <then_branch = c () => (float[B, 4] z) <float[4] k = {1, 2, 3, 4}> { z = Mul(p, k) },
                      else_branch = d () => (float[B, 4] w) { w = Neg(p) }>
        y = If (yes) <then_branch = e () => (float[B, 4] z) <float[4] k = {4, 3, 2, 1}> { z = Add(q, k) },
                      else_branch = f () => (float[B, 4] w) { w = Neg(q) }>""",
    "an input": """y = If (yes) <then_branch = a () => (float[B, 4] r) { r = Identity(x) },
                                  else_branch = b () => (float[B, 4] w) { w = Neg(x) }>""",
    "inside what stays": """y = If (open) <then_branch = a () => (float[B, 4] z) {
            m = Exp(x)
            z = If (yes) <then_branch = c () => (float[B, 4] j) { j = Sqrt(m) },
                          else_branch = d () => (float[B, 4] l) { l = Neg(x) }> },
        else_branch = b () => (float[B, 4] w) { w = Neg(x) }>""",
}
STAY = ("a name that is needed inside another", "inside what stays")
CONSTANTS = """<bool yes = {1}, bool no = {0}, bool[1] listed = {1}, int64 one = {1}, int64 four = {4},
    float filling = {2}, int64[2] size = {2, 4}>"""


def graph(body: str, outputs: str = "float[B, 4] y") -> ir.Model:
    given = "float[B, 4] x" + (", bool open" if "open" in body else "")
    return parsed(f'<ir_version: 10, opset_import: ["" : 18]> g ({given}) => ({outputs}) {CONSTANTS} {{ {body} }}')


def check(model: ir.Model) -> ir.Model:
    """The canonical model, which is a valid one that gives what it gave."""
    before = ReferenceEvaluator(ir.to_proto(model))
    found = canonicalize(model.clone())
    proto = ir.to_proto(found)
    onnx.checker.check_model(proto, full_check=True)
    after, x = ReferenceEvaluator(proto), np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    for decided in (True, False):
        feeds = {"x": x, "open": np.array(decided)}
        given = {v.name: feeds[str(v.name)] for v in model.graph.inputs}
        for expected, made in zip(before.run(None, given), after.run(None, given), strict=True):
            np.testing.assert_array_equal(made, expected)
    names = [v.name for g in found.graphs() for n in g for v in n.outputs]
    assert len(names) == len(set(names)), "no name means two values"
    assert [v.name for v in found.graph.outputs] == [v.name for v in model.graph.outputs]
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_the_branch_that_is_taken(name: str) -> None:
    found = check(graph(GRAPHS[name]))
    count = [n.op_type for n in found.graph.all_nodes()].count("If")
    assert count == (1 if name in STAY else 0)


@pytest.mark.parametrize("value", ["x", "m", "p", "k"])
def test_a_branch_that_gives_a_value_around_it(value: str) -> None:
    """An input, what a node gives, another output, and a constant."""
    found = check(
        graph(
            f"""m = Exp(x) p = Sin(x) k = Expand(filling, size)
            y = If (yes) <then_branch = a () => (float[B, 4] z) {{ z = Identity({value}) }},
                          else_branch = b () => (float[B, 4] w) {{ w = Neg(x) }}>""",
            "float[B, 4] y, float[B, 4] p",
        )
    )
    assert "If" not in [n.op_type for n in found.graph]


def test_two_outputs_of_one_value() -> None:
    found = check(
        graph(
            """y, also = If (yes) <then_branch = a () => (float[B, 4] z, float[B, 4] z2) { z = Exp(x) z2 = Exp(x) },
                                   else_branch = b () => (float[B, 4] w, float[B, 4] v) { w = Neg(x) v = Abs(x) }>""",
            "float[B, 4] y, float[B, 4] also",
        )
    )
    assert [n.op_type for n in found.graph] == ["Exp", "Identity"]


def test_an_input_with_a_default_decides_nothing() -> None:
    model = graph(GRAPHS["one"].replace("yes", "open"))
    (given,) = [v for v in model.graph.inputs if v.name == "open"]
    given.const_value = ir.tensor(np.array(True), name="open")
    model.graph.register_initializer(given)
    assert "If" in [n.op_type for n in canonicalize(model).graph]


def test_what_the_other_branch_read_is_read_no_more() -> None:
    body = GRAPHS["one"].replace("w = Neg(x)", "v = Add(also, x) w = Neg(v)")
    model = graph(f"also = Abs(x) {body}")
    settle(model)
    (also,) = [v for n in model.graph for v in n.outputs if v.name == "also"]
    assert not also.uses()
