"""The mask input of Attention, in the shapes that ONNX Runtime takes: all of [S, T], never one row of it."""

from __future__ import annotations

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lift.scores import lowest


def additive(op: Builder, mask: ir.Value, q: ir.Value, kt: ir.Value) -> ir.Value:
    """A float mask [B|1, H|1, S, T] with its own values, those halved that are near the type's lowest number.

    ONNX Runtime takes a row of nothing but the lowest number for one that has no key, and gives zeros for it; halved,
    the row stays what it was: even over its keys. Minus infinity stays, and blocks more than any number.
    """
    floor = _lowest(op, q)
    return _expanded(op, halved(op, mask, floor), q, kt, like=mask)


def halved(op: Builder, mask: ir.Value, floor: ir.Value) -> ir.Value:
    """The mask, and half of it where it is below the floor, a constant."""
    half = op.Mul(mask, op.constant(0.5, "half", floor.dtype.numpy() if floor.dtype else None))
    return op.Where(op.Less(mask, floor), half, mask)


def from_condition(op: Builder, condition: ir.Value, q: ir.Value, kt: ir.Value, keep: bool, boolean: bool) -> ir.Value:
    """A mask from a boolean that is true at the kept (or else the dropped) scores.

    ``boolean`` gives a boolean mask, under which a row with no allowed key gives zeros; otherwise it is a float mask
    of 0 and half the type's lowest number, under which such a row stays uniform.
    """
    if boolean:
        return _expanded(op, condition if keep else op.Not(condition), q, kt)
    assert q.dtype is not None
    zero = op.constant(0, "mask_open", q.dtype.numpy())
    low = _lowest(op, q)
    chosen = op.Where(condition, zero, low) if keep else op.Where(condition, low, zero)
    return _expanded(op, chosen, q, kt, like=condition)


def _lowest(op: Builder, q: ir.Value) -> ir.Value:
    assert q.dtype is not None
    return op.constant(lowest(q.dtype), "mask_floor", q.dtype.numpy())


def _expanded(op: Builder, mask: ir.Value, q: ir.Value, kt: ir.Value, like: ir.Value | None = None) -> ir.Value:
    """Expand the last two dimensions to S and T where they are not, and the rank to four."""
    source = mask if mask.shape is not None else like
    found = dims(source) if source is not None else None
    if found is None and mask.producer() is not None:  # a node built just now: its first input has its shape
        found = next((dims(v) for v in mask.producer().inputs if dims(v)), None)  # type: ignore[union-attr]
    q_dims, kt_dims = dims(q), dims(kt)
    assert q_dims is not None and kt_dims is not None
    if found is not None and len(found) in (2, 4) and found[-2:] == [q_dims[2], kt_dims[3]]:
        return mask
    return expand(op, mask, q, 2, kt, 3)


def expand(op: Builder, mask: ir.Value, q: ir.Value, q_axis: int, k: ir.Value, k_axis: int) -> ir.Value:
    """The mask expanded to the query length (an axis of ``q``) and the key length (an axis of ``k``)."""
    lengths = [length(op, q, q_axis), length(op, k, k_axis)]
    return op.Expand(mask, op.Concat(op.constant([1, 1], "ones", "int64"), *lengths, axis=0))


def length(op: Builder, v: ir.Value, axis: int) -> ir.Value:
    """One dimension as a vector of one: a constant, or read from the graph input that has it, or from ``v``.

    Reading it from an input leaves ``v`` free to be rewritten, and makes the masks of all layers one.
    """
    found = dims(v)
    assert found is not None
    wanted = found[axis]
    if isinstance(wanted, int):
        return op.constant([wanted], "length", "int64")
    for given in v.producer().graph.inputs if v.producer() is not None else ():  # type: ignore[union-attr]
        if wanted in (known := dims(given) or []):
            at = known.index(wanted)
            return op.Shape(given, start=at, end=at + 1)
    return op.Shape(v, start=axis % len(found), end=axis % len(found) + 1)
