"""Rows that do not depend on the input's values: a table in order is sliced, not looked up.

    table[ids[a:b]]        ids constant: positions, or segments that are all 0    ->  table[ids][a:b]
    table[range(0, n)]     positions                                              ->  table[0:n]
    x + s[a:b] + t[a:b]    positions and segments                                 ->  x + (s + t)[a:b]

Where the original looks up a row that the table lacks, so does a slice end early, and the sum behind it is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.absent import combined, derived
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import is_constant, same_dtype
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims, rank, readable, scalar
from onnxsmith.passes.shapes import Size, evaluate

_AT = ("starts", "ends", "axes", "steps")
_COUNTS = (4, 3, 2)  # how many of these a Slice may be given


def _of_slice(count: int) -> Any:
    def pattern(op: Any, table: Any, ids: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
        return op.Gather(table, op.Slice(ids, *(starts, ends, axes, steps)[:count]), axis=0)

    return pattern


def _looked_up(op: Any, table: Any, ids: Any) -> Any:
    return op.Gather(table, ids, axis=0)


def _two_slices(count: int) -> Any:
    def pattern(op: Any, x: Any, s: Any, t: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
        at = (starts, ends, axes, steps)[:count]
        return op.Add(op.Add(x, op.Slice(s, *at)), op.Slice(t, *at))

    return pattern


def _ids_of_table(m: Match) -> Mismatch | None:
    """Every id is a row, and there are no more ids than rows, for each becomes a row of the new table."""
    ids, rows = constant(m["ids"]), (dims(m["table"]) or [0])[0]
    assert ids is not None and isinstance(rows, int), "the rule requires constants"
    if not readable(ids) or ids.size > rows:
        return Mismatch("constant", f"no more than {rows} known ids", m["ids"], m["ids"])
    numbers = ids.numpy()
    if numbers.size and numbers.min() >= 0 and numbers.max() < rows:
        return None
    return Mismatch("constant", f"ids from 0 to {rows - 1}", m["ids"], m["ids"])


def _counting(m: Match) -> Mismatch | None:
    """The ids are 0, 1, 2 ..; others may read them too, so they are no part of what is matched."""
    if _count(m["ids"]) is not None:
        return None
    return Mismatch("constant", "ids that count from 0", m["ids"], m["ids"])


def _count(ids: ir.Value) -> tuple[ir.Value, bool] | None:
    """How many ids there are, and whether they stand in a row [1, n] and not in a vector [n]."""
    node = ids.producer()
    if node is not None and node.op_type == "Unsqueeze" and evaluate(node.inputs[1]) == [Size(0)]:
        found = _count(node.inputs[0]) if node.inputs[0] is not None else None
        return None if found is None or found[1] else (found[0], True)
    n = count_of(ids)
    return None if n is None else (n, False)


def count_of(v: ir.Value) -> ir.Value | None:
    """The n of 0, 1, 2 .. n - 1 as Range gives it, int64."""
    node = v.producer()
    if node is None or node.op_type != "Range" or node.domain:
        return None
    start, n, step = node.inputs
    if n is None or n.dtype != ir.DataType.INT64 or (scalar(start), scalar(step)) != (0, 1):
        return None
    return n


def _alike(m: Match) -> Mismatch | None:
    if dims(m["s"]) == dims(m["t"]):
        return None
    return Mismatch("shape", f"two tables {dims(m['s'])}", m["t"], m["t"])


def _table_in_order(op: Builder, m: Match) -> ir.Value:
    """Leading dimensions of what is looked up are those of the ids, so their slice is its slice too."""
    table, ids = constant(m["table"]), constant(m["ids"])
    assert table is not None and ids is not None, "the rule requires constants"
    picked, shape = ids.numpy(), ir.Shape((*ids.shape.numpy(), *table.shape.numpy()[1:]))
    rows = op.lazy_constant(derived(table, lambda whole: whole[picked], shape), f"{m['table'].name}_rows")
    at = [m.get(name) for name in _AT]
    if at[2] is not None:
        axes = constant(at[2])
        assert axes is not None, "the rule requires constants"
        at[2] = op.constant(axes.numpy() % (rank(m["ids"]) or 1), "axes", np.int64)
    return op.Slice(rows, *at)


def _first_rows(op: Builder, m: Match) -> ir.Value:
    counted = _count(m["ids"])
    assert counted is not None, "the rule requires ids that count"
    (n, in_a_row), zero = counted, op.constant([0], "zero", np.int64)
    rows = op.Slice(m["table"], zero, op.Unsqueeze(n, zero), zero)
    return op.Unsqueeze(rows, zero) if in_a_row else rows


def _one_slice(op: Builder, m: Match) -> ir.Value:
    tensors = [tensor for name in ("s", "t") if (tensor := constant(m[name])) is not None]
    both = combined(tensors, np.add, ir.Shape(tensors[0].shape.numpy()))
    total = op.lazy_constant(both, f"{m['s'].name}_sum")
    return op.Add(m["x"], op.Slice(total, *(m.get(name) for name in _AT)))


_IN_ORDER = (is_constant("table", "ids", "axes"), _ids_of_table)
_BOTH = (is_constant("s", "t"), same_dtype("x", "s", "t"), _alike)

RULES = [
    *(Rule("rows-in-order", _of_slice(n), _table_in_order, _IN_ORDER) for n in _COUNTS),
    Rule("first-rows", _looked_up, _first_rows, (is_constant("table"), _counting)),
    *(Rule("one-table", _two_slices(n), _one_slice, _BOTH) for n in _COUNTS),
]
