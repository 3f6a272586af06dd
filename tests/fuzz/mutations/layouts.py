"""Layouts: heads joined with the batch around a product, and halves cut by one Split."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.values import dims
from tests.fuzz.mutation import Mutation, Respelling, is_float


def _four_dimensions(m: Match) -> Mismatch | None:
    """Two activations of four dimensions with the same leading ones."""
    a, b = dims(m["a"]), dims(m["b"])
    if a is not None and b is not None and len(a) == len(b) == 4 and a[:2] == b[:2]:
        return None
    return Mismatch("shape", "two factors [B, H, ..]", m.root, m.root)


def _batched(op: Builder, m: Match, rng: Random) -> ir.Value:
    """[B, H, S, D] as [B*H, S, D], with targets computed from shapes as an exporter does."""
    flat = [op.Reshape(v, _target(op, v)) for v in (m["a"], m["b"])]
    lengths = [op.Shape(m["a"], start=0, end=3), op.Shape(m["b"], start=3, end=4)]
    return op.Reshape(op.MatMul(*flat), op.Concat(*lengths, axis=0))


def _target(op: Builder, v: ir.Value) -> ir.Value:
    return op.Concat(op.constant([-1], "joined", np.int64), op.Shape(v, start=2, end=4), axis=0)


def _two_slices(op: Any, x: Any, start: Any, middle: Any, end: Any, axis: Any) -> Any:
    return op.Slice(x, start, middle, axis), op.Slice(x, middle, end, axis)


def _halves(m: Match) -> Mismatch | None:
    width = (dims(m["x"]) or [None])[-1]
    bounds = [m.scalar(name) for name in ("start", "middle", "end", "axis")]
    if isinstance(width, int) and bounds in ([0, width // 2, width, -1], [0, width // 2, width, 3]):
        return None
    return Mismatch("constant", "two halves of the last axis", m["middle"], m["middle"])


def _one_split(op: Builder, m: Match, rng: Random) -> Sequence[ir.Value]:
    half = (dims(m["x"]) or [0])[-1] // 2  # type: ignore[operator]
    return op.several("Split", 2, m["x"], op.constant([half, half], "halves", np.int64), axis=-1)


def _einsum(op: Builder, m: Match, rng: Random) -> ir.Value:
    if rng.random() < 0.5:
        return op.Einsum(m["a"], m["b"], equation="bhik,bhkj->bhij")
    turned = op.Transpose(m["b"], perm=[0, 1, 3, 2])
    return op.Einsum(m["a"], turned, equation="...ik,...jk->...ij")


def _known_axis(m: Match) -> Mismatch | None:
    """One axis, counted from the front."""
    axis = m.scalar("axes")
    return (
        None if axis is not None and axis >= 0 else Mismatch("constant", "one axis from the front", m["axes"], m.root)
    )


def _added_by_reshape(op: Builder, m: Match, rng: Random) -> ir.Value:
    """Unsqueeze as the view that it is; the target's parts are read from the shape."""
    axis, rank = int(m.scalar("axes") or 0), len(dims(m["x"]) or [])
    parts = [
        op.Shape(m["x"], start=0, end=axis),
        op.constant([1], "one", np.int64),
        op.Shape(m["x"], start=axis, end=rank),
    ]
    return op.Reshape(m["x"], op.Concat(*parts, axis=0))


MUTATIONS: list[Mutation] = [
    Respelling("einsum", lambda op, a, b: op.MatMul(a, b), _einsum, (_four_dimensions, is_float)),
    Respelling("reshape-for-unsqueeze", lambda op, x, axes: op.Unsqueeze(x, axes), _added_by_reshape, (_known_axis,)),
    Respelling("batched", lambda op, a, b: op.MatMul(a, b), _batched, (_four_dimensions, is_float)),
    Respelling("split-halves", _two_slices, _one_split, (_halves, is_float)),
]
