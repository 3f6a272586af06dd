"""First fit: short rows share one, so that attention computes fewer scores of tokens that never see each other.

Rows are taken in their order, each into the first shared row that has room for it. At most 1.7 times as many rows are
left as the best way would leave. Source: Johnson et al. 1974, Worst-case performance bounds for simple
one-dimensional packing algorithms, doi:10.1137/0203025.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.values import dims

_INT64, _BOOL = ir.DataType.INT64, ir.DataType.BOOL


def first_fit(
    op: Builder, graph: ir.Graph, names: Names, lengths: ir.Value, room: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Where rows of ``lengths`` int64 [B] go, none longer than ``room`` int64 []: which shared row, and from where.

    Both int64 [B]. One Scan over the rows, whose state is how far each shared row is filled.
    """
    count = (dims(lengths) or [None])[0]
    none = typed(op.Sub(lengths, lengths), _INT64, [count])
    body = _one_row(graph, names, count, room)
    scan = op.several("Scan", 3, none, lengths, num_scan_inputs=1, body=body)
    _, rows, starts = (typed(v, _INT64, [count]) for v in scan)
    return rows, starts


def _one_row(graph: ir.Graph, names: Names, count: int | str | None, room: ir.Value) -> ir.Graph:
    """The body: how far rows are filled [B] and a length [] -> filled further [B], the row taken [], its start []."""
    op = Builder()
    filled, length = ir.Value(name=names.value("filled")), ir.Value(name=names.value("length"))
    typed(filled, _INT64, [count])
    typed(length, _INT64, [])
    ends = typed(op.Add(filled, length), _INT64, [count])
    fits = typed(op.LessOrEqual(ends, room), _BOOL, [count])
    row = typed(op.ArgMax(typed(op.Cast(fits, to=_INT64), _INT64, [count]), axis=0, keepdims=0), _INT64, [])
    at = typed(op.Unsqueeze(row, op.constant([0], "axis", np.int64)), _INT64, [1])
    start = typed(op.Gather(filled, row), _INT64, [])
    end = typed(op.Gather(ends, at), _INT64, [1])
    further = typed(op.ScatterElements(filled, at, end), _INT64, [count])
    body = ir.Graph(
        [filled, length], [further, row, start], nodes=op.nodes, opset_imports=graph.opset_imports, name="first_fit"
    )
    names.adopt(body, op)
    return body


def typed(v: ir.Value, dtype: ir.DataType | None, size: list[int | str | None]) -> ir.Value:
    """The value, told its type and shape."""
    v.type = ir.TensorType(dtype) if dtype is not None else None
    v.shape = ir.Shape(size)
    return v
