"""What depends on how far apart two tokens are is computed once for each distance, not for each pair.

    table[f(j - i)]  [S, S, H]        table[f(d)][j - i + S - 1]   d = 1 - S .. S - 1

f is any chain of elementwise operators, such as T5's buckets. Source: Raffel et al. 2020, arXiv:1910.10683, 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import is_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import dims, rank, scalar
from onnxsmith.passes.optimize.position_tables import count_of

_MOST = 48  # nodes: T5's buckets are a score
_ELEMENTWISE = frozenset(
    {"Abs", "Neg", "Cast", "Log", "Floor", "Ceil", "Clip", "Relu", "Identity", "Not", "Where"}
    | {"Add", "Sub", "Mul", "Div", "Min", "Max", "And", "Or"}
    | {"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"}
)


@dataclass(frozen=True)
class _Distances:
    """``minuend`` and ``subtrahend`` are 0 .. n - 1 in a row [1, n] and in a column [n, 1], either way round."""

    value: ir.Value
    minuend: ir.Value
    subtrahend: ir.Value
    count: ir.Value


@dataclass(frozen=True)
class _Function:
    """Elementwise ``nodes``, in order, of the distances; ``fills`` are tensors [S, S] of one number, as that number."""

    of: _Distances
    nodes: tuple[ir.Node, ...]
    fills: dict[ir.Value, ir.Value]


class _Unknown(Exception):
    """Carries a value that is no function of distances."""

    def __init__(self, value: ir.Value) -> None:
        super().__init__(value.name)
        self.value = value


def _function(index: ir.Value) -> _Function:
    """What the index is computed by. Raises _Unknown."""
    found: dict[ir.Node, None] = {}
    fills: dict[ir.Value, ir.Value] = {}
    sources: dict[ir.Value, _Distances] = {}

    def visit(v: ir.Value) -> None:
        node = v.producer()
        if v in sources or v in fills or node in found or (scalar(v) is not None and (rank(v) or 0) <= 1):
            return
        if (source := _distances(v)) is not None:
            sources[v] = source
        elif (number := _fill(v)) is not None:
            fills[v] = number
        elif node is None or node.domain or node.op_type not in _ELEMENTWISE or len(found) > _MOST:
            raise _Unknown(v)
        else:
            for read in filter(None, node.inputs):
                visit(read)
            found[node] = None

    visit(index)
    if len(sources) != 1 or not found:
        raise _Unknown(index)
    return _Function(next(iter(sources.values())), tuple(found), fills)


def _distances(v: ir.Value) -> _Distances | None:
    node = v.producer()
    if node is None or node.op_type != "Sub" or node.domain:
        return None
    a, b = node.inputs
    if a is None or b is None or (viewed := _viewed(a)) is None or viewed is not _viewed(b):
        return None
    if sorted([size == 1 for size in dims(side) or []] for side in (a, b)) != [[False, True], [True, False]]:
        return None
    count = count_of(viewed)
    return None if count is None else _Distances(v, a, b, count)


def _viewed(v: ir.Value) -> ir.Value | None:
    """What the value is an Unsqueeze of."""
    node = v.producer()
    return node.inputs[0] if node is not None and node.op_type == "Unsqueeze" and not node.domain else None


def _fill(v: ir.Value) -> ir.Value | None:
    """The number that an Expand repeats."""
    node = v.producer()
    number = node.inputs[0] if node is not None and node.op_type == "Expand" and not node.domain else None
    return number if scalar(number) is not None and rank(number) == 0 else None


def _looked_up(op: Any, table: Any, index: Any) -> Any:
    return op.Gather(table, index, axis=0)


def _of_distances(m: Match) -> Mismatch | None:
    try:
        _function(m["index"])
    except _Unknown as e:
        return Mismatch("constant", "ids computed from distances between tokens", e.value, e.value)
    return None


def _once_each(op: Builder, m: Match) -> ir.Value:
    function, one = _function(m["index"]), op.constant(1, "one", np.int64)
    of, n = function.of, function.of.count
    made = dict(_copied(op, function, op.Range(op.Sub(one, n), n, one)))
    by_distance = op.Gather(m["table"], made[m["index"]], axis=0)
    return op.Gather(by_distance, op.Sub(op.Add(of.minuend, op.Sub(n, one)), of.subtrahend), axis=0)


def _copied(op: Builder, function: _Function, distances: ir.Value) -> Iterator[tuple[ir.Value, ir.Value]]:
    """The function's values, by those of the original."""
    made = {**function.fills, function.of.value: distances}
    for node in function.nodes:
        copy = op.several(node.op_type, 1, *(v if v is None else made.get(v, v) for v in node.inputs))[0]
        copy.producer().attributes.update(node.attributes)  # type: ignore[union-attr]
        copy.type, copy.shape = node.outputs[0].type, distances.shape
        made[node.outputs[0]] = copy
        yield node.outputs[0], copy


RULES = [Rule("once-a-distance", _looked_up, _once_each, (is_constant("table"), _of_distances))]
