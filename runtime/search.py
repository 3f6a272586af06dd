"""Nearest neighbours by cosine, exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput, BadUsage


def nearest(
    queries: NDArray[np.floating], corpus: NDArray[np.floating], k: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The ``k`` rows of ``corpus`` [N, D] nearest to every row of ``queries`` [Q, D], the nearest first.

    Returns:
        Indices and float64 cosines, both [Q, k]. Equal ones keep the corpus order; a zero row has cosine 0.

    Raises:
        BadInput: The arrays are not matrices of the same width, or hold values that are not finite.
        BadUsage: ``k`` is not between 1 and N.
    """
    if not 1 <= k <= len(corpus):
        raise BadUsage(f"k must be between 1 and the corpus size {len(corpus)}, found {k}")
    scores = cosines(queries, corpus)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


def cosines(queries: NDArray[np.floating], corpus: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosines [Q, N] of every row of ``queries`` [Q, D] with every row of ``corpus`` [N, D].

    Raises:
        BadInput: The arrays are not matrices of the same width, or hold values that are not finite.
    """
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        raise BadInput(f"expected queries [Q, D] and corpus [N, D], found {queries.shape} and {corpus.shape}")
    return _unit_rows(queries) @ _unit_rows(corpus).T


def _unit_rows(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    if not np.isfinite(wide).all():
        raise BadInput("expected finite embeddings, found NaN or infinity; check the model with onnxsmith compare")
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return unit
