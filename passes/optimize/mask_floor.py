"""The floor of a mask is computed before the mask is spread over heads and rows.

Lifting halves what lies near the type's lowest number in a mask that is added to the scores (see
``lift/mask_input.py``). For a mask of a position bias and padding, that reads and writes [B, H, S, T] three times.

    halved(bias + m)          bias + halved(m)         the numbers of bias are small: beside the floor they round away
    halved(where(c, a, b))    where(c, halved(a), halved(b))

Both are exact in float32. Source: IEEE 754, whose float32 steps are 1e31 wide at half its lowest number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import dtype, scalar_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, readable, scalar
from onnxsmith.passes.lift.mask_input import halved
from onnxsmith.passes.lift.scores import lowest

_SMALL = 1e12  # far below half of what a step of float32 is at the floor
_LARGEST_TABLE = 1 << 20  # elements that are looked through
_PICKS = frozenset({"Gather", "Unsqueeze", "Squeeze", "Transpose", "Reshape", "Expand", "Slice", "Identity"})


def _halved(op: Any, mask: Any, floor: Any) -> Any:
    return op.Where(op.Less(mask, floor), op.Mul(mask, 0.5), mask)


def _of_sum(op: Any, bias: Any, mask: Any, floor: Any) -> Any:
    return _halved(op, op.Add(bias, mask), floor)


def _of_choice(op: Any, c: Any, yes: Any, no: Any, floor: Any) -> Any:
    return _halved(op, op.Where(c, yes, no), floor)


def _is_floor(m: Match) -> Mismatch | None:
    expected = lowest(ir.DataType.FLOAT)
    return None if m.scalar("floor") == expected else Mismatch("constant", f"{expected}", m["floor"], m["floor"])


def _small(m: Match) -> Mismatch | None:
    """The bias is picked from a constant table of small numbers."""
    v: ir.Value | None = m["bias"]
    while v is not None and constant(v) is None:
        node = v.producer()
        v = node.inputs[0] if node is not None and node.op_type in _PICKS and not node.domain else None
    table = constant(v)
    if table is None or table.size > _LARGEST_TABLE or not readable(table):
        return Mismatch("constant", "a bias that is picked from a constant table", m["bias"], m["bias"])
    if np.abs(table.numpy()).max(initial=0) <= _SMALL:  # which NaN is not
        return None
    return Mismatch("constant", f"a table of numbers up to {_SMALL:g}", m["bias"], m["bias"])


def _before_sum(op: Builder, m: Match) -> ir.Value:
    return op.Add(m["bias"], halved(op, m["mask"], m["floor"]))


def _in_choice(op: Builder, m: Match) -> ir.Value:
    chosen = (_number(op, m, name) for name in ("yes", "no"))
    return op.Where(m["c"], *chosen)


def _number(op: Builder, m: Match, name: str) -> ir.Value:
    """The constant, halved where it lies below the floor."""
    found = scalar(m[name])
    assert found is not None, "the rule requires scalars"
    return op.constant(np.float32(found) / 2, "mask_blocked") if found < lowest(ir.DataType.FLOAT) else m[name]


RULES = [
    Rule(
        "floor-in-choice",
        _of_choice,
        _in_choice,
        (scalar_constant("yes", "no", "floor"), dtype("yes", ir.DataType.FLOAT), _is_floor),
    ),
    Rule(
        "floor-before-bias",
        _of_sum,
        _before_sum,
        (scalar_constant("floor"), dtype("bias", ir.DataType.FLOAT), _is_floor, _small),
    ),
]
