"""Numbers in blocks: each run of a row's elements shares one scale, and one zero point where that brings it nearer.

    element ~ (code - zero point) * scale, codes of 4 or 8 bits

Rounding to nearest keeps every element in the range of the codes within half a step (the scale) of its value. Symmetric
blocks have the middle code for their zero point, and a scale whose sign gives the larger side of the range the one code
more; asymmetric blocks span from their smallest element (or zero) to their largest. With few codes a shorter range that
cuts off the outermost elements often leaves the smaller squared error: symmetric blocks of 4 bits search for theirs.
Zero points cost time (a decoder's step in 4 bits takes 1.08x), so they stand only where they pay.
Sources: ONNX Runtime's operator MatMulNBits; Choukroun et al. 2019, arXiv:1902.06822 (ranges of least squared error).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_RANGES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # of the largest element, that 4-bit codes may span
_ROWS = 64  # searched at a time, which stay in the processor's cache
_ZEROS_PAY = 0.8  # of the RMS error without them


@dataclass(frozen=True)
class Blocks:
    """A matrix [R, C] as codes uint8 [R, n, size], scales float32 [R, n] and zero points uint8 [R, n] or None.

    The last block of a row is filled up with the code of zero; ``n`` is C / size, rounded up.
    """

    bits: int
    codes: Array
    scales: Array
    zeros: Array | None

    def dequantized(self) -> Array:
        """The elements that the codes stand for, float32 [R, n * size]."""
        zeros = np.float32(middle(self.bits)) if self.zeros is None else self.zeros[..., None].astype(np.float32)
        elements: Array = (self.codes - zeros) * self.scales[..., None]
        return elements.reshape(len(elements), -1)


def quantize_blocks(matrix: Array, bits: int, size: int) -> Blocks:
    """The rows of a finite matrix [R, C] in blocks of ``size`` elements: with zero points where those pay."""
    rows, columns = matrix.shape
    filled = np.zeros((rows, -(-columns // size) * size), np.float32)
    filled[:, :columns] = matrix
    blocks = filled.reshape(rows, -1, size)
    symmetric, asymmetric = _symmetric(blocks, bits), _asymmetric(blocks, bits)
    pays = _rms_error(asymmetric, filled) < _ZEROS_PAY * _rms_error(symmetric, filled)
    return asymmetric if pays else symmetric


def packed(codes: Array, bits: int) -> Array:
    """Codes uint8 [.., n] as bytes: two of 4 bits share one, the first in its lower half."""
    if bits == 8:
        return codes
    even = np.concatenate([codes, np.zeros_like(codes[..., : codes.shape[-1] % 2])], axis=-1)
    both: Array = even[..., ::2] | even[..., 1::2] << 4
    return both


def symmetric_scales(blocks: Array, bits: int, weights: Array | None = None) -> Array:
    """The scales [R, n] of blocks [R, n, size]; of 4 bits those of least squared error, by column times ``weights``."""
    half = middle(bits)
    low, high = blocks.min(axis=-1), blocks.max(axis=-1)
    larger, smaller = np.maximum(-low, high), np.maximum(np.minimum(-low, high), 0)
    steps = _nonzero(np.maximum(larger / half, smaller / (half - 1)))
    scales: Array = np.where(high > -low, -steps, steps)  # the lowest code, one more, is for the larger side
    if bits == 4:
        parts = range(0, len(blocks), _ROWS)
        searched = [_nearest(blocks[i : i + _ROWS], scales[i : i + _ROWS], half, weights) for i in parts]
        scales = np.concatenate([scales[:0], *searched])
    return scales


def signed(elements: Array, scales: Array, half: int) -> Array:
    """The nearest codes of elements, counted from the middle code; ``scales`` are as many, or broadcast."""
    codes: Array = np.clip(np.rint(elements / scales), -half, half - 1)
    return codes


def middle(bits: int) -> int:
    """The code of zero in symmetric blocks."""
    return 1 << (bits - 1)


def _symmetric(blocks: Array, bits: int) -> Blocks:
    scales, half = symmetric_scales(blocks, bits), middle(bits)
    return Blocks(bits, (signed(blocks, scales[..., None], half) + half).astype(np.uint8), scales, None)


def _nearest(blocks: Array, scales: Array, half: int, weights: Array | None) -> Array:
    """For each block that of the shorter scales which leaves the least squared error; the longest of equal ones."""
    best, least = scales, np.full(scales.shape, np.inf, np.float32)
    for part in _RANGES:
        tried = scales * np.float32(part)
        off = np.square(signed(blocks, tried[..., None], half) * tried[..., None] - blocks)
        left = off.sum(axis=-1) if weights is None else off @ weights
        best, least = np.where(left < least, tried, best), np.minimum(left, least)
    return best


def _asymmetric(blocks: Array, bits: int) -> Blocks:
    largest = 2 * middle(bits) - 1
    low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
    scales = _nonzero((high - low) / largest)
    zeros = np.rint(-low / scales)
    codes = np.rint(blocks / scales[..., None]) + zeros[..., None]
    return Blocks(bits, np.clip(codes, 0, largest).astype(np.uint8), scales, zeros.astype(np.uint8))


def _nonzero(steps: Array) -> Array:
    """Steps float32; a block of zeros alone may have any."""
    tiny: Array = np.maximum(steps, np.finfo(np.float32).tiny).astype(np.float32)
    return tiny


def _rms_error(found: Blocks, filled: Array) -> float:
    return float(np.sqrt(np.mean(np.square(found.dequantized() - filled))))
