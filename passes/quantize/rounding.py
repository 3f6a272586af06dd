"""Rows as whole numbers and a step: what a graph computes to round its own values, along their last axis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder

_TINY = np.finfo(np.float32).tiny  # a row of zeros stays one, whatever it is divided by


def largest(op: Builder, x: ir.Value, least: float = float(_TINY)) -> ir.Value:
    """The largest magnitude [.., 1] of each row of float32 x [.., K], at least ``least``."""
    top = op.ReduceMax(op.Abs(x), op.constant([-1], "axis", np.int64), keepdims=1)
    return op.Max(top, op.constant(least, "tiny", np.float32))


def rounded(op: Builder, x: ir.Value, levels: int) -> tuple[ir.Value, ir.Value]:
    """Whole numbers up to ``levels`` as floats, and their step [.., 1]: x [.., K] is about whole * step."""
    top = largest(op, x, float(_TINY * levels))  # a step below the least normal number may count as zero
    step = op.Div(top, op.constant(levels, "levels", np.float32))
    return op.Round(op.Div(x, step)), step
