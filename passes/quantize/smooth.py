"""Smoothing: a few channels of an activation must not decide the one scale that all of them share.

Transformers put single huge elements into fixed channels, behind norms and behind activations. Dividing such a
channel by a constant before quantization, and multiplying its row of the weights by the same, changes nothing in the
product but leaves the other channels their resolution. Source: Xiao et al. 2022 (SmoothQuant), arXiv:2211.10438; here
only outlying channels are touched, so that the weights keep their resolution too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ORDINARY = 4.0  # a channel may reach this multiple of the median channel's largest element
_WORTH_IT = 1.5  # less than this much finer a scale does not pay for one more pass over the activation


def factors(largest: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Divisors float32 [K], all at least 1, from each channel's largest magnitude [K]; None where they do not pay."""
    ordinary = _ORDINARY * float(np.median(largest))
    if ordinary <= 0 or float(largest.max()) < _WORTH_IT * ordinary:
        return None
    return np.maximum(1, largest / ordinary).astype(np.float32)
