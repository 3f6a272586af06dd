"""Parity: how far an output is from the truth, measured by how far the original already was.

The truth is the original graph in float64. A rewrite is fine when its RMS error is at most twice the original
float32 graph's own and its largest error at most four times; both are compared no finer than 4 ULP of the output's
RMS, below which the float32 format itself decides. (The rule follows PyTorch's accuracy check, which anchors in
float64 likewise.)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RMS_LIMIT = 2.0
LARGEST_LIMIT = 4.0
FLOOR_ULP = 4.0
Array = NDArray[np.generic]


@dataclass(frozen=True)
class ErrorRatio:
    """``rms`` and ``largest`` are the candidate's errors over the baseline's (or over the floor, if that is more)."""

    rms: float
    largest: float
    relative_rms: float
    finite: bool = True

    @property
    def fine(self) -> bool:
        return self.finite and self.rms <= RMS_LIMIT and self.largest <= LARGEST_LIMIT

    def to_json(self) -> dict[str, float | bool]:
        return {**asdict(self), "fine": self.fine}


def error_ratio(
    candidate: Array, baseline: Array, reference: Array, rows: NDArray[np.bool_] | None = None
) -> ErrorRatio:
    """Compare two float32 results with the float64 reference, all of one shape [B, ...].

    ``rows`` selects what has an allowed key, as :func:`counted` does; elsewhere values must only be finite. Integer
    and boolean outputs must be equal.
    """
    if candidate.shape != reference.shape:
        return ErrorRatio(np.inf, np.inf, np.inf, False)
    if not np.issubdtype(reference.dtype, np.floating):
        wrong = float(not np.array_equal(candidate, baseline))
        return ErrorRatio(*(np.inf if wrong else 0.0,) * 3)
    finite = bool(np.all(np.isfinite(candidate) | ~np.isfinite(baseline)))
    if rows is not None:
        candidate, baseline, reference = (counted(x, rows) for x in (candidate, baseline, reference))
    usable = np.isfinite(reference) & np.isfinite(baseline)
    if not usable.any():
        return ErrorRatio(0.0, 0.0, 0.0, finite)
    truth = reference[usable].astype(np.float64)
    off, own = (np.abs(x[usable].astype(np.float64) - truth) for x in (candidate, baseline))
    scale = rms(truth)
    floor = FLOOR_ULP * _ulp(baseline.dtype) * scale + np.finfo(np.float64).tiny
    return ErrorRatio(
        float(rms(off) / max(rms(own), floor)),
        float(off.max() / max(own.max(), floor)),
        float(rms(off) / (scale + np.finfo(np.float64).tiny)),
        finite,
    )


def counted(x: Array, rows: NDArray[np.bool_]) -> Array:
    """The batch rows of ``x`` [B, ...] that ``rows`` [B] selects; all of one whose first dimension is another.

    ``rows`` [B, S] selects positions, and of an ``x`` without such the rows that have one; [B, 1, .., L] selects them
    along a later dimension.
    """
    ends = {0, rows.ndim - 1}  # between them, ones stand for dimensions that have no positions
    if x.ndim >= rows.ndim and all(rows.shape[axis] == x.shape[axis] for axis in ends):
        return x[np.broadcast_to(rows, x.shape[: rows.ndim])]
    return counted(x, np.asarray(rows.any(axis=-1))) if rows.ndim > 1 else x


def _ulp(dtype: np.dtype[np.generic]) -> float:
    kind: Any = dtype if np.issubdtype(dtype, np.floating) else np.float32
    return float(np.finfo(kind).eps)


def rms(x: Array) -> float:
    """Root mean square of all elements."""
    return float(np.sqrt(np.mean(np.square(x.astype(np.float64))))) if x.size else 0.0


def cosine(a: Array, b: Array) -> NDArray[np.float64]:
    """Cosines along the last axis of two arrays [..., D]; 1 where both rows are zero."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a64, axis=-1) * np.linalg.norm(b64, axis=-1)
    dot = np.sum(a64 * b64, axis=-1)
    found: NDArray[np.float64] = np.where(lengths > 0, dot / np.where(lengths > 0, lengths, 1), dot == lengths)
    return found


def kl_divergence(reference: Array, candidate: Array) -> NDArray[np.float64]:
    """KL divergence in nats of softmax(candidate) from softmax(reference), along the last axis of logits [.., V]."""
    own, other = log_softmax(reference), log_softmax(candidate)
    possible = own > -np.inf  # a class that the reference excludes adds nothing
    apart = np.subtract(own, other, where=possible, out=np.zeros_like(own))
    found: NDArray[np.float64] = np.sum(np.exp(own) * apart, axis=-1)
    return found


def top1(reference: Array, candidate: Array) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether the first choices of logits [.., V] agree, and by how much probability the reference's leads its second.

    Both are [..]; of one class alone the lead is 1.
    """
    same = np.asarray(np.argmax(reference, axis=-1) == np.argmax(candidate, axis=-1))
    if reference.shape[-1] < 2:
        return same, np.ones(same.shape)
    second, first = np.moveaxis(np.exp(np.partition(log_softmax(reference), -2, axis=-1)[..., -2:]), -1, 0)
    return same, first - second


def log_softmax(logits: Array) -> NDArray[np.float64]:
    """Log probabilities of logits [.., V], along the last axis."""
    shifted = logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True).astype(np.float64)
    found: NDArray[np.float64] = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return found
