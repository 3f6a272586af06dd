"""Detours: copies, casts, views and dropouts that give a value back unchanged."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.values import dims
from tests.fuzz.mutation import Detour, Mutation, computed


def _rank(v: ir.Value) -> int:
    return len(dims(v) or [])


def _wide(v: ir.Value) -> bool:
    return computed(v) and _rank(v) >= 2


def _identity(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    return op.Identity(op.Identity(v)) if rng.random() < 0.5 else op.Identity(v)


def _cast(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    return op.Cast(op.Cast(v, to=ir.DataType.DOUBLE.value), to=ir.DataType.FLOAT.value)


def _same_cast(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    return op.Cast(v, to=ir.DataType.FLOAT.value)


def _transposed(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    perm = rng.sample(range(_rank(v)), _rank(v))
    return op.Transpose(op.Transpose(v, perm=perm), perm=np.argsort(perm).tolist())


def _unsqueezed(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    axes = op.constant([rng.randint(-1, _rank(v))], "axes", np.int64)
    return op.Squeeze(op.Unsqueeze(v, axes), axes)


def _flattened(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    width = (dims(v) or [])[-1]
    flat = [-1, width] if isinstance(width, int) else [-1]
    return op.Reshape(op.Reshape(v, op.constant(flat, "flat", np.int64)), op.Shape(v))


def _dropout(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    return op.Dropout(v)


def _negated(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    return op.Neg(op.Neg(v))


def _times_one(op: Builder, v: ir.Value, rng: Random) -> ir.Value:
    one, zero = op.constant(1.0, "neutral", np.float32), op.constant(0.0, "neutral", np.float32)
    return rng.choice(
        (lambda: op.Mul(v, one), lambda: op.Div(v, one), lambda: op.Add(v, zero), lambda: op.Sub(v, zero))
    )()


MUTATIONS: list[Mutation] = [
    Detour("identity", _identity, lambda v: True),
    Detour("cast-there-and-back", _cast, computed),
    Detour("cast-to-same", _same_cast, computed),
    Detour("transposed-twice", _transposed, _wide),
    Detour("unsqueezed-squeezed", _unsqueezed, _wide),
    Detour("flattened", _flattened, _wide),
    Detour("dropout", _dropout, computed),
    Detour("negated-twice", _negated, computed),
    Detour("neutral-element", _times_one, computed),
]
