"""Outlier channel splitting: what a few channels exceed the range of a fixed scale by has channels of its own.

    x [.., K] ── QuantizeLinear: saturates at the range ──┐
    x[.., c] ─ (- start) ─ clip ── QuantizeLinear ────────┴─ Concat [.., K + E] · [W; W[c]] [K + E, N]

A channel that reaches three times the range's end has two more, which start at its end and at twice that. All of it is
in the same product, so neither other channels nor other rows lose resolution to it. Source: Zhao et al. 2019,
arXiv:1901.09504, where such channels are halved; here the first holds all that usual rows have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder

Array = np.ndarray[Any, Any]
_LARGEST_CODE = 255


@dataclass(frozen=True)
class Grid:
    """The values that codes uint8 stand for: ``(code - zero) * scale``."""

    scale: np.float32
    zero: np.uint8

    @classmethod
    def over(cls, low: float, high: float) -> Grid:
        """From the lowest value to the highest, and 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(np.float32((high - low) / _LARGEST_CODE), np.finfo(np.float32).tiny)
        return cls(scale, np.uint8(np.rint(-low / scale)))

    @property
    def ends(self) -> tuple[np.float32, np.float32]:
        """What the least and the largest code stand for."""
        return -np.float32(self.zero) * self.scale, np.float32(_LARGEST_CODE - self.zero) * self.scale


@dataclass(frozen=True)
class Excess:
    """Added channels: ``channels`` int64 [E] are read, less ``starts`` float32 [E], within ``ends`` float32 [2, E]."""

    channels: Array
    starts: Array
    ends: Array

    def of(self, op: Builder, x: ir.Value) -> ir.Value:
        """The added channels [.., E] of x [.., K]."""
        read = op.Gather(x, op.constant(self.channels, f"{x.name}_channels"), axis=-1)
        beyond = op.Sub(read, op.constant(self.starts, f"{x.name}_starts"))
        low, high = (op.constant(end, f"{x.name}_{name}") for end, name in zip(self.ends, ("low", "high"), strict=True))
        return op.Min(op.Max(beyond, low), high)

    def of_weights(self, weights: Array) -> Array:
        """The matrix [K + E, N] that multiplies the channels and those added."""
        return np.concatenate([weights, weights[self.channels]])


def excess(lows: Array, highs: Array, grid: Grid, most: int) -> Excess | None:
    """Of channels within ``lows`` and ``highs`` [K], beyond a grid's ends; None for none or for more than ``most``."""
    low, high = grid.ends
    rounding = grid.scale / 2  # as far beyond its end, a code is as near as any other
    above, below = _added(highs - rounding, high), _added(-lows - rounding, -low)
    if not 0 < above.sum() + below.sum() <= most:
        return None
    positive, negative = _each(above), _each(below)
    starts = np.concatenate([positive[1] * high, negative[1] * low])
    upwards = starts > 0
    ends = np.stack([np.where(upwards, 0, low), np.where(upwards, high, 0)]).astype(np.float32)
    return Excess(np.concatenate([positive[0], negative[0]]), starts.astype(np.float32), ends)


def cut_off(lows: Array, highs: Array, grid: Grid) -> float:
    """What each input would lose at most if all others had been calibrated on, on average; both are [inputs, K]."""
    if len(lows) < 2:
        return np.inf
    low, high = grid.ends
    return float(np.mean(np.maximum(_beyond_others(highs, high), _beyond_others(-lows, -low))))


def of_others(largest: Array) -> Array:
    """For each of the inputs [n, ..] the largest of all the others; minus infinity where it is the only one."""
    nothing = np.full_like(largest[:1], -np.inf)
    second, first = np.sort(np.concatenate([nothing, largest]), axis=0)[-2:]
    others: Array = np.where(largest < first, first, second)
    return others


def _beyond_others(largest: Array, end: np.float32) -> Array:
    """How far each input [n] of ``largest`` [n, K] reaches beyond the range with what the others' excess adds to it."""
    covered = end * (1 + _added(of_others(largest), end)) if end > 0 else np.zeros_like(largest)
    beyond: Array = np.maximum(largest - covered, 0).max(axis=1)
    return beyond


def _added(largest: Array, end: np.float32) -> Array:
    """How many channels more each needs [K]; infinitely many on a side that has no range."""
    if not end > 0:
        return np.where(largest > 0, np.inf, 0)
    added: Array = np.maximum(np.ceil(largest / end) - 1, 0)
    return added


def _each(added: Array) -> tuple[Array, Array]:
    """For every added channel which one it reads, and the how manieth of that it is: int64 [n]."""
    channels = np.repeat(np.arange(len(added)), added.astype(np.int64))
    return channels, np.arange(len(channels)) - np.searchsorted(channels, channels) + 1
