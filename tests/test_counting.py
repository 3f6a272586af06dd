"""Which positions count: under a causal mask with padding, those that some key is allowed at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.padding import counting
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.runtime.parity import counted, error_ratio
from tests.fuzz.sketch import Sketch

LEFT = np.array([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
REACHED = [[False, False, True, True], [True] * 4, [False] * 4]


def lifted(mask: str) -> ir.Model:
    """A self-attention with keys as a further output, its mask causal, of padding, or both; lifted."""
    s = Sketch("float[B, S, 16] x, int64[B, S] mask", "float[B, S, 16] y, float[B, 2, S, 8] keys")
    q, k, v = (s.heads(s.linear("x", n)) for n in "qkv")
    padding = s.op("Cast<to=9>", s.op("Unsqueeze", "mask", "middle"))
    keep = {"causal": s.causal(), "padding": padding, "both": s.op("And", s.causal(), padding)}[mask]
    s.op("Identity", s.linear(s.attend(q, k, v, keep=keep), "out"), out="y")
    s.op("Identity", k, out="keys")
    return pipeline.run(canonicalize(s.model()), pipeline.passes(target("onnx", "fp32"), "fp32")).model


def case(mask: np.ndarray = LEFT) -> Case:
    x = np.zeros((*mask.shape, 16), np.float32)
    return Case("one", {"x": x, "mask": mask}, mask.any(axis=1))


def test_causal_queries_before_the_first_token_do_not_count() -> None:
    (found,) = counting(lifted("both"), [case()])
    assert {name: flags.shape for name, flags in found.positions.items()} == {"y": (3, 4), "keys": (3, 1, 4)}
    assert found.counted("y").tolist() == found.counted("keys")[:, 0].tolist() == REACHED


def test_padding_on_the_right_leaves_every_position_a_key() -> None:
    (found,) = counting(lifted("both"), [case(LEFT[:2, ::-1])])
    assert found.counted("y").all()


@pytest.mark.parametrize("mask", ["causal", "padding"])
def test_under_any_other_mask_whole_rows_count(mask: str) -> None:
    (found,) = counting(lifted(mask), [case()])
    assert not found.positions and found.counted("y").tolist() == [True, True, False]


def test_positions_of_a_cache_are_counted_up_to_the_last() -> None:
    """S queries of T keys: the queries are the last S positions."""
    model = lifted("both")
    attention = next(n for n in model.graph if n.op_type == "Attention")
    mask, x = (next(v for v in model.graph.inputs if v.name == name) for name in ("mask", "x"))
    mask.shape = ir.Shape(["B", "T"])
    attention.metadata_props["onnxsmith.mask"] = '{"causal": true, "padding": "mask", "keep": true, "bias": false}'
    attention.op_type, attention.domain = "GroupQueryAttention", "com.microsoft"  # a kernel: what is recorded goes
    short = replace(case(), feeds={"x": np.zeros((3, 1, 16), np.float32), "mask": LEFT})
    (found,) = counting(model, [short], [x])
    assert found.counted("x").tolist() == [[True], [True], [False]]


def test_flags_along_a_later_dimension_select_there() -> None:
    x = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    flags = np.array([[[True, False]], [[False, False]]])
    assert counted(x, flags).tolist() == [0, 2, 4]
    assert counted(x[:, 0], flags).tolist() == [[0, 1]]  # no such positions: the rows that have one


def test_an_error_counts_where_there_is_a_key_and_only_there() -> None:
    truth = np.ones((1, 4), np.float32)
    off = truth + np.array([[5, 0, 0, 0]], np.float32)
    flags = np.array([[False, True, True, True]])
    assert error_ratio(off, truth, truth, flags).fine
    assert not error_ratio(off[:, ::-1], truth, truth, flags).fine
    assert not error_ratio(np.where(flags, truth, np.nan), truth, truth, flags).fine
