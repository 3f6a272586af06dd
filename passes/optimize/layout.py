"""Where tokens stand: padded as they came, packed without padding, and in the rows that attention runs on.

    padded  [B, S, ..]   ``tokens`` [N]: where each packed token is, in B * S
    packed  [1, N, ..]   ``places`` [B, S]: where each position is among the packed, the one before for padding
    rows    [R, L, ..]   ``order`` [R, L]: the packed token that is there; ``slots`` [N]: where it is, in R * L

L is the largest number of tokens that a row keeps. Rows that fit together share one (see first_fit.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.optimize.first_fit import first_fit, typed

TOKENS, ROWS, LONGEST = "packed_tokens", "shared_rows", "longest_row"
_INT64, _BOOL = ir.DataType.INT64, ir.DataType.BOOL
_VACANT = -1  # as an index the last token: what attention computes there is finite, and nothing reads it


@dataclass(frozen=True)
class Padding:
    """What marks the padding: ``mask`` [B, S], and whether 1 there means allowed."""

    mask: ir.Value
    keep: bool

    @property
    def lead(self) -> list[int | str | None]:
        """The dimensions of what has padding, [B, S]."""
        return dims(self.mask) or []


@dataclass(frozen=True)
class Packed:
    """The tokens that are kept: those allowed and the first of each row; ``kept`` bool [B, S], ``length`` is S."""

    kept: ir.Value
    length: ir.Value
    tokens: ir.Value
    places: ir.Value


@dataclass(frozen=True)
class Rows:
    """The rows of attention. ``together`` bool [R, 1, L, L] tells which tokens were in one row before; ``pairs``
    int64 [R, L, L] where the mask [B * S * S] has what a query says of a key."""

    order: ir.Value
    slots: ir.Value
    together: ir.Value
    pairs: ir.Value


def packed(op: Builder, padding: Padding) -> Packed:
    mask, lead = padding.mask, padding.lead
    one, zero, flat = op.constant(1, "one"), op.constant(0, "zero"), op.constant([-1], "flat")
    marked = op.Cast(mask, to=_BOOL)
    length = op.Squeeze(op.Shape(mask, start=1, end=2))
    first = op.Equal(op.Range(zero, length, one), zero)
    kept = typed(op.Or(marked if padding.keep else op.Not(marked), first), _BOOL, lead)
    flags = op.Reshape(kept, flat)
    tokens = typed(op.Reshape(op.NonZero(flags), flat), _INT64, [TOKENS])
    counted = op.Sub(op.CumSum(op.Cast(flags, to=_INT64), zero), one)
    return Packed(kept, length, tokens, typed(op.Reshape(counted, op.Shape(mask)), _INT64, lead))


def rows(op: Builder, graph: ir.Graph, names: Names, tokens: Packed, share: bool) -> Rows:
    """One row for each as it came, or fewer where they may ``share``."""
    zero, one, single = op.constant(0, "zero"), op.constant(1, "one"), op.constant([1], "single")
    counts = op.ReduceSum(op.Cast(tokens.kept, to=_INT64), single, keepdims=0)
    lengths = typed(counts, _INT64, (dims(tokens.kept) or [])[:1])
    longest = typed(op.ReduceMax(lengths, keepdims=0), _INT64, [])
    if share:
        taken, starts = first_fit(op, graph, names, lengths, longest)
    else:
        taken, starts = op.Range(zero, op.Squeeze(op.Shape(lengths)), one), zero
    moved = op.Sub(op.Add(op.Mul(taken, longest), starts), op.CumSum(lengths, zero, exclusive=1))
    own = op.Div(tokens.tokens, tokens.length)
    every = op.Range(zero, op.Squeeze(op.Shape(tokens.tokens)), one)
    slots = typed(op.Add(every, op.Gather(moved, own)), _INT64, [TOKENS])
    size = [op.Reshape(op.Add(op.ReduceMax(taken, keepdims=0), one), single), op.Reshape(longest, single)]
    vacant = op.Expand(op.constant(_VACANT, "vacant"), op.Mul(*size))
    order = op.Reshape(op.ScatterElements(vacant, slots, every), op.Concat(*size, axis=0))
    typed(order, _INT64, [ROWS, LONGEST])
    return Rows(order, slots, *_scores(op, tokens, order, own))


def _scores(op: Builder, tokens: Packed, order: ir.Value, own: ir.Value) -> tuple[ir.Value, ir.Value]:
    """``together`` and ``pairs``; ``own`` [N] is the row that each token came in."""
    ahead, behind = op.constant([1], "single"), op.constant([2], "last")
    vacant = op.Less(order, op.constant(0, "zero"))
    row = op.Where(vacant, order, op.Gather(own, order))
    together = op.Unsqueeze(op.Equal(op.Unsqueeze(row, behind), op.Unsqueeze(row, ahead)), ahead)
    place = op.Gather(tokens.tokens, order)
    key = op.Unsqueeze(op.Mod(place, tokens.length), ahead)
    pairs = op.Add(op.Unsqueeze(op.Mul(place, tokens.length), behind), key)
    scores = [ROWS, LONGEST, LONGEST]
    return typed(together, _BOOL, [ROWS, 1, LONGEST, LONGEST]), typed(pairs, _INT64, [*scores])
