"""Dimensions that an operator forces to be equal get one name; those that merely meet keep theirs."""

from __future__ import annotations

import pytest

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.canonicalize.unify import unify
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.symbolic import infer
from tests.toy import parsed


def unified(given: str, body: str, consts: str = "") -> dict[str, list[int | str | None] | None]:
    """The dimensions of all values by name, after what the body forces."""
    consts = f"<{consts}>" if consts else ""
    text = f"g ({given}) => (float y) {consts} {{ {body} y = ReduceSum(v) }}"
    model = parsed(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
    infer(model)
    unify(model)
    return {str(v.name): dims(v) for v in [*model.graph.inputs, *(v for n in model.graph for v in n.outputs)]}


FORCED = [
    ("float[B,S,K] x, float[B,L,N] w", "v = MatMul(x, w)", "K", "L"),
    ("float[S,K] x, float[L,N] w", "v = Gemm(x, w)", "K", "L"),
    ("float[K,S] x, float[N,L] w", "v = Gemm<transA=1, transB=1>(x, w)", "K", "L"),
    ("float[K,3] x, float[L,4] w", "v = Concat<axis=1>(x, w)", "K", "L"),
    ("float[B,2,S,8] x, float[B,2,K,8] k, float[B,2,L,8] w", "v = Attention(x, k, w)", "K", "L"),
    ("float[K,2,S,8] x, float[L,2,T,8] w", "v = Attention(x, w, w)", "K", "L"),
    ("float[K,3,4] x, float[L,12] w", "s = Shape(w) v = Reshape(x, s)", "K", "L"),
]


@pytest.mark.parametrize(("given", "body", "one", "other"), FORCED, ids=lambda text: text)
def test_what_an_operator_needs_to_be_equal_gets_one_name(given: str, body: str, one: str, other: str) -> None:
    found = [d for shape in unified(given, body).values() for d in shape or []]
    assert one in found and other not in found


NOT_FORCED = [
    ("float[B,K] x, float[B,L] w", "v = Add(x, w)"),  # either may be 1
    ("bool[K] x, float[L] w, float[1] z", "v = Where(x, w, z)"),
    ("float[K,3,4] x, float[L,4,N] w", "v = MatMul(x, w)"),
    ("float[1,K] x, float[L,1] w", "s = Shape(w) v = Expand(x, s)"),
    ("float[K,3] x, float[L,3] w", "v = Concat<axis=0>(x, w)"),
    ("float[B,2,K,8] x, float[B,2,L,8] w", "v = Attention(x, w, w)"),  # queries and keys
    ("float[K,K2,4] x, float[L,L2,4] w", "s = Shape(w) v = Reshape(x, s)"),  # either of two pairs
]


@pytest.mark.parametrize(("given", "body"), NOT_FORCED, ids=lambda text: text)
def test_what_may_differ_keeps_its_names(given: str, body: str) -> None:
    names = {d for shape in unified(given, body).values() for d in shape or []}
    assert {"K", "L"} <= names


def test_a_number_is_no_name() -> None:
    assert unified("float[B,K] x, float[7,N] w", "v = MatMul(x, w)")["x"] == ["B", "K"]


def test_products_and_sums_are_renamed_with_their_parts() -> None:
    body = "v = MatMul(x, w) f = Reshape(x, flat) c = Concat<axis=1>(x, p)"
    found = unified("float[B,K] x, float[L,N] w, float[B,P] p, float[L,P] q", body, "int64[1] flat = {-1}")
    assert (found["f"], found["c"], found["q"]) == (["B*K"], ["B", "K + P"], ["K", "P"])


def test_the_name_of_an_input_is_kept_before_that_of_a_sum() -> None:
    body = "c = Concat<axis=0>(p, x) v = MatMul(m, c)"
    assert unified("float[P,4] p, float[S,4] x, float[B,T] m", body)["c"] == ["T", 4]


def test_a_sum_that_equals_its_own_part_proves_a_wrong_name() -> None:
    body = "c = Concat<axis=0>(p, x) v = MatMul(m, c)"
    assert unified("float[P,4] p, float[S,4] x, float[B,P] m", body)["c"] == ["P + S", 4]


def test_a_branch_that_may_never_run_proves_nothing() -> None:
    body = "v = If<then_branch = t () => (z) {z = MatMul(x, w)}, else_branch = e () => (z) {z = Add(x, x)}>(c)"
    assert unified("bool c, float[B,K] x, float[L,N] w", body)["w"] == ["L", "N"]


_CACHED = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[B,2,S,8] q, float[B,2,S,8] k, float[B,2,S,8] v, float[B,2,P,8] past_k, float[B,2,P,8] past_v,
   float[B,1,S,total] mask) => (float[B,2,S,8] y)
<float scale = {0.5}, float[B,2,total,8] keys>
{
    keys = Concat<axis=2>(past_k, k)
    values = Concat<axis=2>(past_v, v)
    turned = Transpose<perm=[0, 1, 3, 2]>(keys)
    product = MatMul(q, turned)
    scaled = Mul(product, scale)
    masked = Add(scaled, mask)
    probabilities = Softmax<axis=-1>(masked)
    y = MatMul(probabilities, values)
}
"""


def test_keys_as_long_as_the_mask_and_values_as_past_and_present_are_one_attention() -> None:
    """What torch.export writes of a decoder of transformers 4.57: it knows of the keys alone that they are as long."""
    lifted = pipeline.run(canonicalize(parsed(_CACHED)), pipeline.passes(target("onnx", "fp32"), "fp32")).model
    (attention,) = (n for n in lifted.graph if n.op_type == "Attention")
    assert [dims(v)[2] for v in attention.inputs[:3]] == ["S", "total", "total"]  # type: ignore[index]
    assert not any(n.op_type == "Expand" for n in lifted.graph)  # the mask is as wide as the keys, by name
