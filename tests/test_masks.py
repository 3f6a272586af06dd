"""Masks are named by what they do, however they are spelled."""

from __future__ import annotations

import numpy as np
import pytest

from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.engine.values import rank
from onnxsmith.passes.lift import masks
from onnxsmith.passes.lift.masks import MaskMeaning
from tests.toy import parsed

_TEXT = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,2,S,4] q, float[B,2,S,4] k, float[B,2,S,4] v, {given}) => (float[B,2,S,4] y)
<float zero = {{0.0}}, float one = {{1.0}}, float low = {{-3.4028234663852886e38}}, float infinite = {{-inf}},
 int64 naught = {{0}}, int64 step = {{1}}, int64[1] first = {{0}}, int64[1] second = {{1}}, int64[2] middle = {{1, 2}},
 int64[2] front = {{0, 1}}, int64[1] ones = {{1}}, int64 far = {{1}}>
{{
    {body}
    y = Attention(q, k, v, mask)
}}
"""
KEEP, IDS = "int64[B,S] attention_mask", "int64[B,S] input_ids"
LENGTHS = "n = Shape<start=1, end=2>({source})\nsquare = Concat<axis=0>(n, n)\n"
WIDE = "wide = Unsqueeze(attention_mask, middle)\n"
PADDING = WIDE + "kept = Cast<to=1>(wide)\nblocked = Sub(one, kept)\npadding = Mul(blocked, low)\n"
GROW = LENGTHS + "b = Shape<start=0, end=1>(attention_mask)\nfull = Concat<axis=0>(b, ones, n, n)\n"
TRIANGLE = LENGTHS + "filled = ConstantOfShape<value=float[1] {{-3.4028235e38}}>(square)\n"
UPPER = TRIANGLE + "future = Trilu<upper=1>(filled, far)\ncausal = Unsqueeze(future, front)\n"
ORDER = (
    "n = Shape<start=1, end=2>({source})\nlength = Squeeze(n)\nplaces = Range(naught, length, step)\n"
    "row = Unsqueeze(places, first)\ncolumn = Unsqueeze(places, second)\npast = LessOrEqual(row, column)\n"
)

SPELLINGS = {
    "padding by Sub and Mul": (KEEP, PADDING + "mask = Identity(padding)", MaskMeaning(padding="attention_mask")),
    "padding expanded": (
        KEEP,
        GROW + PADDING + "mask = Expand(padding, full)",
        MaskMeaning(padding="attention_mask"),
    ),
    "padding by Where": (
        KEEP,
        WIDE + "kept = Cast<to=9>(wide)\nmask = Where(kept, zero, infinite)",
        MaskMeaning(padding="attention_mask"),
    ),
    "padding by a boolean": (KEEP, WIDE + "mask = Cast<to=9>(wide)", MaskMeaning(padding="attention_mask")),
    "padding that marks what to drop": (
        KEEP,
        WIDE + "dropped = Cast<to=9>(wide)\nmask = Where(dropped, low, zero)",
        MaskMeaning(padding="attention_mask", keep=False),
    ),
    "dropped by a boolean": (
        "bool[B,S] attention_mask",
        WIDE + "mask = Not(wide)",
        MaskMeaning(padding="attention_mask", keep=False),
    ),
    "causal by Trilu": (IDS, UPPER + "mask = Identity(causal)", MaskMeaning(causal=True)),
    "causal by comparison": (IDS, ORDER + "mask = Unsqueeze(past, front)", MaskMeaning(causal=True)),
    "causal by Where": (
        IDS,
        ORDER + "triangle = Where(past, zero, low)\nmask = Unsqueeze(triangle, front)",
        MaskMeaning(causal=True),
    ),
    "causal and padding added": (
        KEEP,
        UPPER + PADDING + "mask = Min(causal, padding)",
        MaskMeaning(causal=True, padding="attention_mask"),
    ),
    "causal and padding as booleans": (
        KEEP,
        ORDER + WIDE + "kept = Cast<to=9>(wide)\nmask = And(past, kept)",
        MaskMeaning(causal=True, padding="attention_mask"),
    ),
    "none": (KEEP, WIDE + "kept = Cast<to=1>(wide)\nmask = Mul(kept, zero)", MaskMeaning()),
}


def named(given: str, body: str, weights: dict[str, np.ndarray] | None = None) -> MaskMeaning | None:
    source = given.split()[-1]
    text = _TEXT.format(given=given, body=body.replace("{source}", source).replace("{{", "{").replace("}}", "}"))
    model = canonicalize(parsed(text, weights))
    remarks = masks.annotate(model)
    assert [r.kind for r in remarks] == ["analysis"]
    return masks.meaning_of(next(n for n in model.graph if n.op_type == "Attention"))


@pytest.mark.parametrize(("given", "body", "meaning"), SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(given: str, body: str, meaning: MaskMeaning) -> None:
    assert named(given, body) == meaning


def test_a_learned_table_is_a_bias() -> None:
    body = WIDE + "mask = Gather(table, wide)"
    assert named(KEEP, body, {"table": np.array([0.1, -0.2, 0.3])}) == MaskMeaning(bias=True)


def test_padding_is_told_under_a_bias() -> None:
    body = PADDING + "picked = Gather(table, wide)\nmask = Add(padding, picked)"
    found = named(KEEP, body, {"table": np.array([0.1, -0.2, 0.3])})
    assert found == MaskMeaning(padding="attention_mask", bias=True)
    assert str(found) == "additive bias and padding of attention_mask"


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ("float[B,1,S,S] bias", "mask = Identity(bias)"),
        ("bool[B,1,S,S] allowed", "mask = Identity(allowed)"),
        (KEEP, WIDE + "kept = Cast<to=1>(wide)\nmask = Sub(kept, one)"),
        (IDS, ORDER + "future = Not(past)\nmask = Unsqueeze(future, front)"),
    ],
    ids=["any float input", "any boolean input", "a mild penalty", "only the future"],
)
def test_what_no_meaning_fits_stays_unnamed(given: str, body: str) -> None:
    assert named(given, body) is None


def test_no_mask_at_all() -> None:
    model = parsed("""
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,2,S,4] q) => (float[B,2,S,4] y, float[B,2,S,4] z) {
    y = Attention(q, q, q)
    z = Attention<is_causal=1>(q, q, q)
}
""")
    assert [r.reason for r in masks.annotate(model)] == ["mask: none", "mask: causal"]
    assert [masks.meaning_of(n) for n in model.graph] == [MaskMeaning(), MaskMeaning(causal=True)]
    assert rank(model.graph.outputs[0]) == 4


@pytest.mark.parametrize(
    ("meaning", "text"),
    [
        (MaskMeaning(), "none"),
        (MaskMeaning(bias=True), "additive bias"),
        (MaskMeaning(causal=True), "causal"),
        (MaskMeaning(causal=True, padding="m"), "causal and padding of m"),
    ],
)
def test_meanings_read_well(meaning: MaskMeaning, text: str) -> None:
    assert str(meaning) == text
