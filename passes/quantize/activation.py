"""What calibration says of an activation: which channels to smooth, and the range that all of its values lie in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsmith.passes.quantize import smooth

Array = np.ndarray[Any, Any]
_STEADY = 1.25  # a range that inputs share may be this much wider than the usual one input's
_LARGEST_CODE = 255


@dataclass(frozen=True)
class Activation:
    """``factor`` float32 [K] divides the channels, where that pays (see smooth.py).

    ``span`` is the lowest and highest value after that, for a scale fixed beforehand; None where the scale is better
    taken from each input as it comes.
    """

    factor: Array | None = None
    span: tuple[float, float] | None = None

    def scale(self) -> tuple[np.float32, np.uint8] | None:
        """Scale and zero point of codes uint8 that reach from the span's lowest value (or 0) to its highest."""
        if self.span is None:
            return None
        low, high = min(self.span[0], 0.0), max(self.span[1], 0.0)
        scale = np.float32((high - low) / _LARGEST_CODE)
        return scale, np.uint8(np.rint(-low / scale))


def calibrated(lows: Array, highs: Array, *, fixed: bool) -> Activation:
    """From the least and greatest value of each channel on each input, both [inputs, K].

    A ``fixed`` scale saves a pass over the activation; it pays where one input needs nearly the range of all of them.
    """
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
