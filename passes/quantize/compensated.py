"""Rounding that makes up for itself: what one column loses, the columns that are not yet rounded take over.

A product x · W is wrong by x · (W' - W), whose mean square over inputs is, for each row w of W^T, (w' - w) H (w' - w)^T
with the second moment H = E[x^T x] of the activation. Rounding to nearest minimizes that only where H is diagonal.
Here columns are rounded in order, and each error is spread over the later columns as H says, which minimizes the rest.
Source: Frantar et al. 2022 (GPTQ), arXiv:2210.17323; the scale of a block is the one of least error, weighted by H's
diagonal, when the first of its columns comes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxsmith.passes.quantize.blocks import Blocks, middle, signed, symmetric_scales

Array = np.ndarray[Any, Any]
_DAMPING = 0.01  # of the mean square of the channels, for those that hardly move or move together


def compensate(matrix: Array, moment: Array, bits: int, size: int) -> Blocks:
    """The rows of a finite matrix [R, C] in symmetric blocks along C, for inputs with the second moment [C, C]."""
    rows, columns = matrix.shape
    count, half = -(-columns // size), middle(bits)
    spread, weights = _spread(moment), np.diagonal(moment).astype(np.float32)
    left = np.array(matrix.T, np.float32, order="C")  # a copy, of which a column at a time is read and written
    codes, scales = np.full((count * size, rows), half, np.uint8), np.empty((count, rows), np.float32)
    for i in range(count):
        here = slice(i * size, min((i + 1) * size, columns))
        scales[i] = symmetric_scales(left[here].T[:, None], bits, weights[here])[:, 0]
        found, lost = _rounded(left[here], scales[i], spread[here, here], half)
        codes[here] = found + half
        left[here.stop :] -= spread[here, here.stop :].T @ lost
    return Blocks(bits, codes.T.reshape(rows, count, size), np.ascontiguousarray(scales.T), None)


def _rounded(block: Array, scales: Array, spread: Array, half: int) -> tuple[Array, Array]:
    """Codes of a block's columns [c, R], counted from the middle, and what each loses; ``block`` is changed."""
    codes, lost = np.empty_like(block), np.empty_like(block)
    for j, column in enumerate(block):
        codes[j] = signed(column, scales, half)
        lost[j] = (column - codes[j] * scales) / spread[j, j]
        block[j + 1 :] -= np.outer(spread[j, j + 1 :], lost[j])
    return codes, lost


def _spread(moment: Array) -> Array:
    """The upper Cholesky factor of the damped moment's inverse, float32 [C, C]: a row says where an error goes."""
    damped = moment.astype(np.float64)
    mean = float(np.diagonal(damped).mean())
    damped[np.diag_indices(len(damped))] += _DAMPING * mean if mean > 0 else 1.0
    spread: Array = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
    return spread
