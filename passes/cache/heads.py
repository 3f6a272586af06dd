"""Heads set apart from features, and packed into them again.

Shapes: B batch, S tokens, H heads, D head size.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.values import dims

_TURN = [0, 2, 1, 3]


def packed(op: Builder, v: ir.Value) -> ir.Value:
    """[B, H, S, D] or [B, S, H, D] as [B, S, H*D]"""
    found = dims(v) or []
    if len(found) == 3:
        return v
    turned = v
    if isinstance(found[1], int):
        turned = op.Transpose(v, perm=_TURN)
        turned.type, turned.shape = v.type, ir.Shape([found[i] for i in _TURN])
    batch, length, heads, size = dims(turned) or []
    assert isinstance(heads, int) and isinstance(size, int), "a cache has heads of known sizes"
    flat = op.Reshape(turned, op.constant([0, 0, heads * size], "packed", np.int64))
    flat.type, flat.shape = v.type, ir.Shape([batch, length, heads * size])
    return flat


def apart(op: Builder, v: ir.Value, heads: int) -> ir.Value:
    """[B, S, H*D] as [B, H, S, D]"""
    batch, length, width = dims(v) or []
    assert isinstance(width, int), "a cache has heads of known sizes"
    split = op.Reshape(v, op.constant([0, 0, heads, width // heads], "split", np.int64))
    split.type, split.shape = v.type, ir.Shape([batch, length, heads, width // heads])
    turned = op.Transpose(split, perm=_TURN)
    turned.type, turned.shape = v.type, ir.Shape([batch, heads, length, width // heads])
    return turned
