"""What calibration says of an activation: which channels to smooth, what its values lie within, how rows differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsmith.passes.quantize import smooth

Array = np.ndarray[Any, Any]
_STEADY = 1.25  # a range that inputs share may be this much wider than the usual one input's
_UNEVEN = 4.0  # the largest row over the usual one, from where a scale for each is worth the time
_UNEVEN_STEPS = 2.0  # the same for a model with a cache: it mostly runs on one row, where that takes next to none
_LARGEST_CODE = 255


@dataclass(frozen=True)
class Rows:
    """How the rows (tokens) of an activation differ.

    ``shares`` [K] are the magnitudes of the channels where every row is divided by its largest, on average; ``uneven``
    is the largest magnitude of the largest row over that of the median row, without channels that outlie in all rows.
    """

    shares: Array
    uneven: float


def rows_of(x: Array) -> Rows:
    """Of an activation [N, K] of one input; rows of nothing but zeros, such as padding's, do not count."""
    x = np.abs(x[np.any(x, axis=1)])
    if not len(x):
        return Rows(np.zeros(x.shape[1], np.float32), 1.0)
    shares = (x / x.max(axis=1, keepdims=True)).mean(axis=0)
    factor = smooth.factors(shares)
    sizes = (x if factor is None else x / factor).max(axis=1)
    return Rows(shares, float(sizes.max() / np.median(sizes)))


@dataclass(frozen=True)
class Activation:
    """``factor`` float32 [K] divides the channels, where that pays (see smooth.py).

    ``span`` is the lowest and highest value after that, for a scale fixed beforehand; None where the scale is better
    taken from each input as it comes. ``by_row``: each row has a scale of its own.
    """

    factor: Array | None = None
    span: tuple[float, float] | None = None
    by_row: bool = False

    def scale(self) -> tuple[np.float32, np.uint8] | None:
        """Scale and zero point of codes uint8 that reach from the span's lowest value (or 0) to its highest."""
        if self.span is None:
            return None
        low, high = min(self.span[0], 0.0), max(self.span[1], 0.0)
        scale = np.float32((high - low) / _LARGEST_CODE)
        return scale, np.uint8(np.rint(-low / scale))


def calibrated(lows: Array, highs: Array, rows: Sequence[Rows] = (), *, fixed: bool, steps: bool = False) -> Activation:
    """From the least and greatest value of each channel on each input, both [inputs, K], and the rows of each input.

    Rows that are uneven enough have scales of their own: in 4 activations of MiniLM's 24, in 35 of 121 of SmolLM2 with
    a cache. Less is enough for a model that mostly ``steps`` over one row. A ``fixed`` scale saves a pass over the
    activation; it pays where one input needs nearly the range of all of them. What a decoder's first token sends to
    the second product of a feed-forward network may be 400 times as large as what all others do; source: Sun et al.
    2024, arXiv:2402.17762.
    """
    if rows and float(np.median([r.uneven for r in rows])) > (_UNEVEN_STEPS if steps else _UNEVEN):
        return Activation(smooth.factors(np.mean([r.shares for r in rows], axis=0)), by_row=True)
    factor = smooth.factors(np.maximum(np.abs(lows), np.abs(highs)).max(axis=0))
    if not fixed:
        return Activation(factor)
    divisor = 1 if factor is None else factor
    low = np.minimum((lows / divisor).min(axis=1), 0)
    high = np.maximum((highs / divisor).max(axis=1), 0)
    whole, usual = float(high.max() - low.min()), float(np.median(high - low))
    if not 0 < whole <= _STEADY * usual:
        return Activation(factor)
    return Activation(factor, (float(low.min()), float(high.max())))
