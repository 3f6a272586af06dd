"""Numbers in blocks: each run of a row's elements shares one scale, and one zero point where that brings it nearer.

    element ~ (code - zero point) * scale, codes of 4 or 8 bits

Rounding to nearest keeps every element within half a step (the scale) of its value. Symmetric blocks have the middle
code for their zero point, and a scale whose sign gives the larger side of the range the one code more; asymmetric
blocks span from their smallest element (or zero) to their largest. Source: ONNX Runtime's operator MatMulNBits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


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
        zeros = np.float32(_middle(self.bits)) if self.zeros is None else self.zeros[..., None].astype(np.float32)
        elements: Array = (self.codes - zeros) * self.scales[..., None]
        return elements.reshape(len(elements), -1)


def quantize_blocks(matrix: Array, bits: int, size: int) -> Blocks:
    """The rows of a finite matrix [R, C] in blocks of ``size`` elements: asymmetric ones where those are nearer."""
    rows, columns = matrix.shape
    filled = np.zeros((rows, -(-columns // size) * size), np.float32)
    filled[:, :columns] = matrix
    blocks = filled.reshape(rows, -1, size)
    symmetric, asymmetric = _symmetric(blocks, bits), _asymmetric(blocks, bits)
    return min(symmetric, asymmetric, key=lambda found: _rms_error(found, filled))


def packed(codes: Array, bits: int) -> Array:
    """Codes uint8 [.., n] as bytes: two of 4 bits share one, the first in its lower half."""
    if bits == 8:
        return codes
    even = np.concatenate([codes, np.zeros_like(codes[..., : codes.shape[-1] % 2])], axis=-1)
    both: Array = even[..., ::2] | even[..., 1::2] << 4
    return both


def _symmetric(blocks: Array, bits: int) -> Blocks:
    middle = _middle(bits)
    low, high = blocks.min(axis=-1), blocks.max(axis=-1)
    larger, smaller = np.maximum(-low, high), np.maximum(np.minimum(-low, high), 0)
    steps = _nonzero(np.maximum(larger / middle, smaller / (middle - 1)))
    scales = np.where(high > -low, -steps, steps)  # the lowest code, of which there is one more, is for the larger side
    codes = np.rint(blocks / scales[..., None]) + middle
    return Blocks(bits, np.clip(codes, 0, 2 * middle - 1).astype(np.uint8), scales, None)


def _asymmetric(blocks: Array, bits: int) -> Blocks:
    largest = 2 * _middle(bits) - 1
    low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
    scales = _nonzero((high - low) / largest)
    zeros = np.rint(-low / scales)
    codes = np.rint(blocks / scales[..., None]) + zeros[..., None]
    return Blocks(bits, np.clip(codes, 0, largest).astype(np.uint8), scales, zeros.astype(np.uint8))


def _middle(bits: int) -> int:
    return 1 << (bits - 1)


def _nonzero(steps: Array) -> Array:
    """Steps float32; a block of zeros alone may have any."""
    tiny: Array = np.maximum(steps, np.finfo(np.float32).tiny).astype(np.float32)
    return tiny


def _rms_error(found: Blocks, filled: Array) -> float:
    return float(np.sqrt(np.mean(np.square(found.dequantized() - filled))))
