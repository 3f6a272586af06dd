"""Attentions that share scores or probabilities are fused all the same; what is needed otherwise stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.verify import check_whole, runnable
from tests.fuzz import fuzz
from tests.fuzz.sketch import Sketch

_INPUTS = "float[B, S, 16] x, int64[B, S] mask, float[1, 2, S, S] bias"
_TWO = "float[B, S, 16] y, float[B, S, 16] z"


def sketch(outputs: str = _TWO) -> tuple[Sketch, str, str, str]:
    """A graph that has scores [B, H, S, S] and two tensors of values."""
    s = Sketch(_INPUTS, outputs)
    q, k, v, w = (s.heads(s.linear("x", n)) for n in "qkvw")
    scores = s.op("MatMul", q, s.op("Transpose<perm=[0, 1, 3, 2]>", k))
    return s, s.op("Div", scores, "root_size"), v, w


def softmax(s: Sketch, scores: str) -> str:
    return s.op("Softmax<axis=-1>", scores)


def weigh(s: Sketch, p: str, v: str, out: str) -> None:
    turned = s.op("Transpose<perm=[0, 2, 1, 3]>", s.op("MatMul", p, v))
    s.op("Identity", s.linear(s.op("Reshape", turned, "merge"), f"{out}_out"), out=out)


def one_softmax() -> Sketch:
    s, scores, v, w = sketch()
    p = softmax(s, s.op("Add", scores, s.padding()))
    weigh(s, p, v, "y")
    weigh(s, p, w, "z")
    return s


def a_mask_each() -> Sketch:
    s, scores, v, w = sketch()
    weigh(s, softmax(s, s.op("Add", scores, s.padding())), v, "y")
    weigh(s, softmax(s, s.op("Where", s.causal(), scores, "minus_inf")), w, "z")
    return s


def a_bias_for_both() -> Sketch:
    s, scores, v, w = sketch()
    biased = s.op("Add", scores, "bias")
    weigh(s, softmax(s, s.op("Add", biased, s.padding())), v, "y")
    weigh(s, softmax(s, s.op("Where", s.causal(), biased, "minus_inf")), w, "z")
    return s


def one_of_them_unmasked() -> Sketch:
    s, scores, v, w = sketch()
    weigh(s, softmax(s, s.op("Add", scores, s.padding())), v, "y")
    weigh(s, softmax(s, scores), w, "z")
    return s


def one_masked_twice() -> Sketch:
    """Masked scores are masked again for the other attention."""
    s, scores, v, w = sketch()
    masked = s.op("Add", scores, s.padding())
    weigh(s, softmax(s, masked), v, "y")
    weigh(s, softmax(s, s.op("Where", s.causal(), masked, "minus_inf")), w, "z")
    return s


SHARED: list[tuple[Callable[[], Sketch], int]] = [
    (one_softmax, 1),
    (a_mask_each, 2),
    (a_bias_for_both, 2),
    (one_of_them_unmasked, 2),
    (one_masked_twice, 2),
]


@pytest.mark.parametrize(("make", "count"), SHARED, ids=lambda x: getattr(x, "__name__", str(x)))
def test_fused_with_the_same_values(make: Callable[[], Sketch], count: int) -> None:
    model = make().model()
    feeds = fuzz.feeds(model)
    expected, lifted = run_model(model.clone())(feeds), fuzz.lifted(model)
    assert [n.op_type for n in lifted.graph if n.op_type in ("Attention", "Softmax")] == ["Attention"] * count
    for name, value in run_model(lifted.clone())(feeds).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5 * np.abs(expected[name]).max())


@pytest.mark.parametrize(("make", "count"), SHARED, ids=lambda x: getattr(x, "__name__", str(x)))
def test_verified_at_all_shapes(make: Callable[[], Sketch], count: int) -> None:
    model = make().model()
    evidence = check_whole(model.clone(), fuzz.lifted(model.clone()), runnable(model.clone(), {}), {})
    assert len(evidence) == 2 and all(e.worst.fine for e in evidence)


def scores_returned() -> Sketch:
    s, scores, v, w = sketch(f"{_TWO}, float[B, 2, S, S] scores")
    weigh(s, softmax(s, s.op("Add", scores, s.padding())), v, "y")
    weigh(s, softmax(s, scores), w, "z")
    s.op("Identity", scores, out="scores")
    return s


def probabilities_returned() -> Sketch:
    s, scores, v, w = sketch(f"{_TWO}, float[B, 2, S, S] p")
    p = softmax(s, scores)
    weigh(s, p, v, "y")
    weigh(s, p, w, "z")
    s.op("Identity", p, out="p")
    return s


def scores_summed() -> Sketch:
    """What else reads the scores is no softmax: they are needed as they are."""
    s, scores, v, _ = sketch()
    weigh(s, softmax(s, s.op("Add", scores, s.padding())), v, "y")
    weigh(s, s.op("Relu", scores), v, "z")
    return s


def probabilities_weighed_themselves() -> Sketch:
    s, scores, v, w = sketch()
    p = softmax(s, scores)
    weigh(s, p, v, "y")
    weigh(s, s.op("Sqrt", p), w, "z")
    return s


@pytest.mark.parametrize(
    "make", [scores_returned, probabilities_returned, scores_summed, probabilities_weighed_themselves]
)
def test_what_is_needed_otherwise_stays(make: Callable[[], Sketch]) -> None:
    kinds = [n.op_type for n in fuzz.lifted(make().model()).graph]
    assert "Attention" not in kinds and "Softmax" in kinds
