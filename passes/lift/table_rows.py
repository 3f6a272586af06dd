"""Rows of a table, picked element by element, become rows that are picked whole.

    GatherElements(repeat(table [1, N, D]), repeat(ids [B, S, 1]), axis=1)     Gather(table [N, D], ids [B, S])

PyTorch's gather wants an index for every element, so models repeat the ids along the row and the table along the batch
(GPT-J's rotary angles). Source: ONNX operator specification, GatherElements-13, Gather-13.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.absent import derived
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims

_REPEATS = ("Tile", "Expand")


def _elements(op: Any, table: Any, ids: Any) -> Any:
    return op.GatherElements(table, ids, axis=1)


def _single(v: ir.Value, axis: int) -> ir.Value | None:
    """What is repeated along that axis alone to give the value, itself where its size there is 1; None for others."""
    found = dims(v)
    if found is None or len(found) != 3:
        return None
    if found[axis] == 1:
        return v
    node = v.producer()
    source = node.inputs[0] if node is not None and node.op_type in _REPEATS and not node.domain else None
    own = dims(source)
    if source is None or own is None or len(own) != 3:
        return None
    others = [(a, b) for i, (a, b) in enumerate(zip(own, found, strict=True)) if i != axis]
    return _single(source, axis) if all(a == b and a is not None for a, b in others) else None


def _one_table(m: Match) -> Mismatch | None:
    if _single(m["table"], 0) is None:
        return Mismatch("shape", "one table for all rows of the batch", m["table"], m["table"])
    return None


def _whole_rows(m: Match) -> Mismatch | None:
    """One index for each row, and as many elements of it as the table has."""
    width = (dims(m["table"]) or [None])[-1]
    if _single(m["ids"], 2) is None or width is None or (dims(m["ids"]) or [])[2] != width:
        return Mismatch("shape", f"one index for the {width} elements of a row", m["ids"], m["ids"])
    return None


def _rows(op: Builder, m: Match) -> ir.Value:
    table, ids = _single(m["table"], 0), _single(m["ids"], 2)
    assert table is not None and ids is not None, "the rule requires repeats"
    return op.Gather(_matrix(op, table), op.Squeeze(ids, op.constant([2], "axis", np.int64)), axis=0)


def _matrix(op: Builder, table: ir.Value) -> ir.Value:
    """[1, N, D] as [N, D], as a constant where it is one."""
    tensor = constant(table)
    if tensor is None:
        return op.Squeeze(table, op.constant([0], "axis", np.int64))
    return op.lazy_constant(derived(tensor, lambda x: x[0], ir.Shape(tensor.shape.numpy()[1:])), f"{table.name}_rows")


RULES = [Rule("table-rows", _elements, _rows, (_one_table, _whole_rows))]
