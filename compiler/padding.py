"""Which positions count: all that have an allowed key, and no padded ones once padding was removed.

A causal query sees the keys up to its own, so under padding on the left the first queries of a row see none. What the
original makes of them is the rounding of its mask: nothing later attends to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.inputs import Case
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lift.masks import meanings
from onnxsmith.passes.optimize.unpad import allowed_positions
from onnxsmith.passes.symbolic import derived

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class _Causal:
    """A causal mask with padding: the input [B, T] that marks keys, and what the dimensions B, S and T are called."""

    padding: str
    keep: bool
    batch: int | str | None
    queries: int | str | None
    keys: int | str | None

    def axis(self, v: ir.Value) -> int | None:
        """The dimension of a value [B, ..] that holds positions; of scores [.., S, T] that of the queries."""
        found = derived(v)
        if not found or found[0] is None or found[0] != self.batch:
            return None
        named = (i for i, d in enumerate(found) if i and d is not None and d in (self.queries, self.keys))
        return next(named, None)

    def reached(self, case: Case, v: ir.Value, axis: int, queries: int) -> Flags:
        """Whether a key is allowed up to each position: of all keys, or of the last ones where ``v`` has queries."""
        allowed = np.logical_or.accumulate(case.feeds[self.padding].astype(bool) == self.keep, axis=1)
        return allowed[:, -queries:] if (derived(v) or [])[axis] == self.queries else allowed


def counting(compiled: ir.Model, cases: Sequence[Case], values: Iterable[ir.Value] | None = None) -> list[Case]:
    """The cases with ``positions`` for those of the values (the model's outputs) that have some without a key.

    Where the compiled model has no padding, ``rows`` are narrowed to the allowed positions [B, S].
    """
    causal, given = _causal(compiled), list(compiled.graph.outputs if values is None else values)
    return [_counting(compiled, case, causal, given) for case in cases]


def _counting(compiled: ir.Model, case: Case, causal: Sequence[_Causal], values: Sequence[ir.Value]) -> Case:
    allowed = allowed_positions(compiled, case.feeds)
    if allowed is not None:
        return replace(case, rows=allowed)
    sizes = {d: n for v in compiled.graph.inputs for d, n in zip(dims(v) or [], _shape(case, v), strict=False)}
    found: dict[str, Flags] = {}
    for v in values:
        for mask in causal:
            axis = mask.axis(v)
            if axis is None or mask.queries not in sizes:
                continue
            reached = mask.reached(case, v, axis, sizes[mask.queries]) & case.rows[:, None]
            spread = np.expand_dims(reached, tuple(range(1, axis)))
            found[str(v.name)] = found[str(v.name)] & spread if str(v.name) in found else spread
    return replace(case, positions=found)


def _shape(case: Case, v: ir.Value) -> tuple[int, ...]:
    return case.feeds[str(v.name)].shape if str(v.name) in case.feeds else ()


def _causal(model: ir.Model) -> list[_Causal]:
    inputs = {str(v.name): dims(v) or [] for v in model.graph.inputs}
    found: dict[_Causal, None] = {}
    for node, meaning in meanings(model).items():
        q = dims(node.inputs[0])
        if meaning is None or not meaning.causal or meaning.padding is None or not q or len(q) < 3:
            continue
        batch, keys = inputs[meaning.padding]
        found[_Causal(meaning.padding, meaning.keep, batch, q[-2], keys)] = None
    return list(found)
