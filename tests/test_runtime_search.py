"""Nearest neighbours by cosine."""

from __future__ import annotations

import numpy as np
import pytest

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.search import cosines, nearest

CORPUS = np.array([[1, 0], [0, 2], [3, 3], [0, 0], [5, 0]], np.float32)


def test_the_nearest_come_first_and_length_does_not_count() -> None:
    indices, scores = nearest(np.array([[0.1, 9.0], [2.0, 0.0]]), CORPUS, 3)
    assert indices.tolist() == [[1, 2, 0], [0, 4, 2]]
    np.testing.assert_allclose(scores[1], [1, 1, np.sqrt(0.5)])


def test_zero_rows_have_cosine_zero() -> None:
    assert cosines(CORPUS[:1], CORPUS)[0].tolist() == [1, 0, pytest.approx(np.sqrt(0.5)), 0, 1]


def test_what_cannot_be_searched() -> None:
    with pytest.raises(BadInput, match=r"found \(1, 3\) and \(5, 2\)"):
        nearest(np.ones((1, 3)), CORPUS, 1)
    with pytest.raises(BadInput, match="NaN or infinity"):
        nearest(np.array([[np.nan, 1]]), CORPUS, 1)
    for k in (0, 6):
        with pytest.raises(BadUsage, match=f"between 1 and the corpus size 5, found {k}"):
            nearest(CORPUS, CORPUS, k)
