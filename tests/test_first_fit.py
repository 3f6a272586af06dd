"""Rows that share one: each in the first that has room, none beyond the end, none over another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.optimize.first_fit import first_fit
from tests.toy import parsed

GRAPH = """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[B] lengths, int64 room) => (int64[B] same) { same = Identity(lengths) }
"""


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    model = parsed(GRAPH, {})
    graph, op = model.graph, Builder()
    names = Names(model)
    found = first_fit(op, graph, names, *graph.inputs)
    names.adopt(graph, op)
    graph.extend(op.nodes)
    graph.outputs[:] = found
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


def _laid(session: ort.InferenceSession, lengths: list[int], room: int) -> list[tuple[int, int]]:
    rows, starts = session.run(None, {"lengths": np.array(lengths, np.int64), "room": np.array(room, np.int64)})
    return list(zip(rows.tolist(), starts.tolist(), strict=True))


def test_the_first_row_with_room_is_taken(session: ort.InferenceSession) -> None:
    assert _laid(session, [4, 3, 2, 1, 2], 4) == [(0, 0), (1, 0), (2, 0), (1, 3), (2, 2)]


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_rows_neither_meet_nor_leave_their_room(session: ort.InferenceSession, lengths: list[int]) -> None:
    room = max(lengths)
    laid = sorted(
        (row, start, start + n) for (row, start), n in zip(_laid(session, lengths, room), lengths, strict=True)
    )
    assert all(end <= room for _, _, end in laid)
    assert all(before[0] < after[0] or before[2] == after[1] for before, after in pairwise(laid))
    assert {row for row, _, _ in laid} == set(range(laid[-1][0] + 1))
