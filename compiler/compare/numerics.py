"""How far the outputs of two variants are apart, on the positions that count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput
from onnxsmith.runtime.parity import cosine, rms
from onnxsmith.runtime.search import cosines


@dataclass(frozen=True)
class OutputParity:
    """One output against the reference's.

    ``relative_rms`` is the RMS of the difference over that of the reference, ``largest`` the largest
    difference, ``min_cosine`` the smallest cosine of two rows (last axis). Where one side is not finite and
    the other differs, the errors are infinite and the cosine is -1.
    """

    output: str
    relative_rms: float
    largest: float
    min_cosine: float


@dataclass(frozen=True)
class SearchAgreement:
    """Every text as a query against the others: the share of equal nearest texts, and the least cosine."""

    queries: int
    top1: float
    min_cosine: float


def output_parity(
    name: str, candidate: NDArray[Any], reference: NDArray[Any], mask: NDArray[Any] | None = None
) -> OutputParity:
    """Compare an output with the reference's.

    Args:
        name: Of the output.
        candidate: Any shape.
        reference: The same shape.
        mask: [B, S], nonzero where a token stands; it selects positions of outputs [B, S, ...].
    """
    if candidate.shape != reference.shape:
        raise BadInput(f"output {name}: shapes {reference.shape} and {candidate.shape} differ; compare like with like")
    ours, theirs = _rows(candidate, mask), _rows(reference, mask)
    same = ours == theirs  # equal infinities (masked logits) are no difference
    difference = np.where(same, 0.0, np.subtract(ours, theirs, where=~same, out=np.zeros_like(ours)))
    if not np.isfinite(difference).all():
        return OutputParity(name, np.inf, np.inf, -1.0)
    finite = np.where(np.isfinite(theirs), theirs, 0.0)
    error, scale = rms(difference), rms(finite)
    relative = error / scale if scale else (np.inf if error else 0.0)
    cosines_ = cosine(finite + difference, finite)
    return OutputParity(name, relative, float(np.abs(difference).max(initial=0)), float(cosines_.min(initial=1)))


def search_agreement(candidate: NDArray[np.floating], reference: NDArray[np.floating]) -> SearchAgreement:
    """Agreement of two sets of embeddings [N, D] of the same texts, N at least 2."""
    if len(reference) < 2:
        raise BadInput(f"search agreement needs at least two texts, found {len(reference)}; give more")
    equal = _nearest_other(candidate) == _nearest_other(reference)
    return SearchAgreement(len(reference), float(equal.mean()), float(cosine(candidate, reference).min()))


def _rows(array: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[np.float64]:
    """float64 rows [N, D]: the positions that count of [B, S, ...], the rows of anything else."""
    wide = np.atleast_2d(array.astype(np.float64))
    if mask is not None and wide.ndim >= 3 and wide.shape[:2] == mask.shape:
        wide = wide[mask.astype(bool)]
    return wide.reshape(-1, wide.shape[-1])


def _nearest_other(embeddings: NDArray[np.floating]) -> NDArray[np.intp]:
    scores = cosines(embeddings, embeddings)
    np.fill_diagonal(scores, -np.inf)
    nearest: NDArray[np.intp] = scores.argmax(axis=1)
    return nearest
