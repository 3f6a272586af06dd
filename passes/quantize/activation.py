"""What calibration says of an activation: which channels to smooth or to split, its values' range, how rows differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsmith.passes.quantize import smooth
from onnxsmith.passes.quantize.excess import Excess, Grid, cut_off, excess, of_others

Array = np.ndarray[Any, Any]
_STEADY = 2.0  # a range that inputs share may be this much wider than one input's usual one: a bit is lost at most
_UNEVEN = 4.0  # the largest row over the usual one, from where a scale for each is worth the time
_UNEVEN_STEPS = 2.0  # the same for a model with a cache: it mostly runs on one row, where that takes next to none
_ROOM = (1.5, 2.0, 2.5)  # how many times the usual row a range is that leaves the excess of a few channels to others
_MOST_ADDED = 16  # channels for it: with up to 64, MiniLM took 1.02x of the time and was no more accurate
_CUT_OFF = 0.1  # of what is usual: the most that an input may lose where the others alone had calibrated


@dataclass(frozen=True)
class Rows:
    """How the rows (tokens) of an activation differ.

    ``shares`` [K] are the magnitudes of the channels where every row is divided by its largest, on average. ``usual``
    is the largest magnitude of the median row, and ``uneven`` that of the largest row over it, both without channels
    that outlie in all rows.
    """

    shares: Array
    usual: float
    uneven: float


def rows_of(x: Array) -> Rows:
    """Of an activation [N, K] of one input; rows of nothing but zeros, such as padding's, do not count."""
    x = np.abs(x[np.any(x, axis=1)])
    if not len(x):
        return Rows(np.zeros(x.shape[1], np.float32), 0.0, 1.0)
    shares = (x / x.max(axis=1, keepdims=True)).mean(axis=0)
    factor = smooth.factors(shares)
    sizes = (x if factor is None else x / factor).max(axis=1)
    usual = float(np.median(sizes))
    return Rows(shares, usual, float(sizes.max()) / usual)


@dataclass(frozen=True)
class Activation:
    """``factor`` float32 [K] divides the channels, where that pays (see smooth.py).

    ``span`` is the lowest and highest value after that, for a scale fixed beforehand; None where the scale is better
    taken from each input as it comes. ``excess`` is what exceeds it (see excess.py). ``by_row``: each row has a scale
    of its own.
    """

    factor: Array | None = None
    span: tuple[float, float] | None = None
    excess: Excess | None = None
    by_row: bool = False

    def grid(self) -> Grid | None:
        """What codes uint8 stand for that reach from the span's lowest value (or 0) to its highest."""
        return Grid.over(*self.span) if self.span is not None else None


def calibrated(lows: Array, highs: Array, rows: Sequence[Rows] = (), *, fixed: bool, steps: bool = False) -> Activation:
    """From the least and greatest value of each channel on each input, both [inputs, K], and the rows of each input.

    A ``fixed`` scale saves a pass over the activation, and a ReLU before it vanishes into the codes. It costs next to
    nothing where one input needs about the range of all of them, or where what exceeds that of usual rows has channels
    of its own. Other rows that are uneven enough have scales of their own: in 4 activations of MiniLM's 24, in 35 of
    121 of SmolLM2 with a cache. Less is enough for a model that mostly ``steps`` over one row. What a decoder's first
    token sends to the second product of a feed-forward network may be 400 times as large as what all others do;
    source: Sun et al. 2024, arXiv:2402.17762.
    """
    factor = smooth.factors(np.maximum(np.abs(lows), np.abs(highs)).max(axis=0))
    uneven = rows and float(np.median([r.uneven for r in rows])) > (_UNEVEN_STEPS if steps else _UNEVEN)
    if fixed and (uneven or factor is not None) and (found := _split(lows, highs, rows)) is not None:
        return found
    if uneven:
        return Activation(smooth.factors(np.mean([r.shares for r in rows], axis=0)), by_row=True)
    if not fixed:
        return Activation(factor)
    divisor = 1 if factor is None else factor
    low = np.minimum((lows / divisor).min(axis=1), 0)
    high = np.maximum((highs / divisor).max(axis=1), 0)
    whole, usual = float(high.max() - low.min()), float(np.median(high - low))
    if not 0 < whole <= _STEADY * usual or _of_one_alone(high) + _of_one_alone(-low) > _CUT_OFF * usual:
        return Activation(factor)
    return Activation(factor, (float(low.min()), float(high.max())))


def _of_one_alone(ends: Array) -> float:
    """What each of the inputs' ends [n] would lose on average if all others had set the range."""
    return float(np.maximum(ends - of_others(ends), 0).mean())


def _split(lows: Array, highs: Array, rows: Sequence[Rows]) -> Activation | None:
    """The least range for usual rows, and channels for what others exceed it by.

    None where those are too many, or others for every input: what exceeds has to be a matter of the weights.
    """
    low, high = lows.min(axis=0), highs.max(axis=0)
    usual = float(np.median([r.usual for r in rows])) if rows else 0.0
    if not usual:
        return None
    for most in (room * usual for room in _ROOM):
        span = max(float(low.min()), -most), min(float(high.max()), most)
        found = excess(low, high, Grid.over(*span), _MOST_ADDED)
        if found is not None and cut_off(lows, highs, Grid.over(*span)) <= _CUT_OFF * usual:
            return Activation(span=span, excess=found)
    return None
