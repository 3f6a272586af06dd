"""Adversarial inputs: every plan, at the edges, made from the graph alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.inputs import PLANS, cases, table_rows
from onnxsmith.compiler.verify import runnable
from tests.toy import POSITIONS, VOCABULARY, encoder, parsed

_IDS, _MASK = "input_ids", "attention_mask"


def test_every_plan_varies_every_axis() -> None:
    found = {case.name: case for case in cases(encoder())}
    assert list(found) == [plan.name for plan in PLANS]
    assert {case.feeds[_IDS].shape for case in found.values()} >= {(1, 1), (2, 7), (3, 16), (1, 64)}
    assert all(case.feeds[_IDS].shape == case.feeds[_MASK].shape for case in found.values())
    assert all(v.dtype == np.int64 for case in found.values() for v in case.feeds.values())


def test_ids_reach_the_edges_of_the_table_and_stay_inside() -> None:
    for case in cases(encoder()):
        ids = case.feeds[_IDS]
        assert ids.min() >= 0 and ids.max() < VOCABULARY
        assert ids.size == 1 or (ids.min(), ids.max()) == (0, VOCABULARY - 1)


def test_masks_are_what_the_plans_say() -> None:
    masks = {case.name: case.feeds[_MASK] for case in cases(encoder())}
    assert masks["one token"].all() and masks["no padding"].all()
    right, left = masks["right padding"], masks["left padding"]
    assert (np.diff(right, axis=1) <= 0).all() and not right.all()
    assert (np.diff(left, axis=1) >= 0).all() and not left.all()
    assert masks["one token allowed"].sum(axis=1).tolist() == [1, 1]
    assert not masks["long"].all()


def test_rows_tell_which_have_an_allowed_key() -> None:
    rows = {case.name: case.rows.tolist() for case in cases(encoder())}
    assert rows.pop("a blocked row") == [True, False, True]
    assert all(all(found) for found in rows.values())


def test_bounds_limit_named_dimensions() -> None:
    lengths = {case.feeds[_IDS].shape[1] for case in cases(encoder(), {"sequence": 5})}
    assert lengths == {1, 5}


def cached() -> ir.Model:
    """A graph with a cache: the mask is as long as what is cached and what is new."""
    model = parsed(
        """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[B,S] ids, int64[B,T] mask, float[B,2,P,4] past) => (float[B,S,4] x, int64[B,T] m, float[B,2,P,4] p) {
    x = Gather(table, ids)
    m = Identity(mask)
    p = Identity(past)
}
""",
        {"table": np.zeros((9, 4))},
    )
    model.graph.inputs[1].shape = ir.Shape(["B", "P + S"])
    return model


def test_a_mask_is_as_long_as_the_cache_and_what_follows_it() -> None:
    lengths = set()
    for case in cases(cached(), {"S": 30, "P + S": 30}):
        past, new = case.feeds["past"].shape[2], case.feeds["ids"].shape[1]
        assert case.feeds["mask"].shape[1] == past + new <= 30
        lengths.add((past > 0, new > 1))
    assert lengths == {(False, True), (True, False), (True, True)}  # a prompt, one more token, several more


def test_a_cache_has_no_limit_when_the_model_has_none() -> None:
    assert {case.feeds["past"].shape[2] for case in cases(cached())} == {plan.past for plan in PLANS}


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = ([case.feeds[_IDS] for case in cases(encoder(), seed=seed)] for seed in (3, 3))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_table_rows_are_found_through_casts_and_are_the_smallest() -> None:
    model = parsed(
        """
<ir_version: 10, opset_import: ["" : 23]>
g (int32[B,S] ids, int32[B,S] other, float[V,4] given) => (float[B,S,4] y, float[B,S,4] z) {
    wide = Cast<to=7>(ids)
    a = Gather(large, ids)
    b = Gather(small, wide)
    y = Add(a, b)
    z = Gather(given, other)
}
""",
        {"large": np.zeros((9, 4)), "small": np.zeros((6, 4))},
    )
    ids, other, given = model.graph.inputs
    assert (table_rows(ids), table_rows(other), table_rows(given)) == (6, None, None)


def test_an_input_with_a_default_is_left_alone() -> None:
    model = parsed("""
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,4] x, float[4] bias = {1.0, 2.0, 3.0, 4.0}) => (float[B,4] y) { y = Add(x, bias) }
""")
    assert all(list(case.feeds) == ["x"] for case in cases(model))


def test_shapes_that_the_original_refuses_are_left_out() -> None:
    model = parsed("""
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S] x) => (float[B,7] y) <int64[2] baked = {0, 7}> { y = Reshape(x, baked) }
""")
    assert {case.feeds["x"].shape[1] for case in runnable(model, {})} == {7}
    assert [case.name for case in runnable(encoder(), {})] == [plan.name for plan in PLANS]
    assert POSITIONS == 64  # the long plan reaches the last position
