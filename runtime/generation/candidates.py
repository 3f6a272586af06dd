"""The best continuations of a text's beams: of tokens that the graph ranked, or of all its logits.

Shapes: K beams, V vocabulary, C candidates, R ranked tokens of each beam.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.runtime.generation.processors import Processor, processed
from onnxsmith.runtime.generation.ranked import Ranked

Array = NDArray[Any]
_STEP = 16
_PART = _STEP**2  # values, of which the largest is found at once


@dataclass(frozen=True)
class Candidates:
    """``totals`` float32 [C], the largest first; the ``beams`` [C] that they continue, and the ``tokens`` [C]."""

    totals: Array
    beams: Array
    tokens: Array


def of_ranked(ranked: Ranked, scores: Array, count: int, banned: Sequence[Collection[int]]) -> Candidates:
    """The ``count`` largest sums of a beam's score and a log probability, but of ``banned`` tokens of each beam.

    Args:
        ranked: The best of each beam, [K, R]; R is at least ``count`` and as many as are banned in a beam.
        scores: float32 [K].
        count: How many to find.
        banned: Ids, of each beam.
    """
    left = ranked.without(banned)
    beams = np.repeat(np.arange(len(left)), [len(tokens) for _, tokens in left])
    values, tokens = map(np.concatenate, zip(*left, strict=True))
    return _sorted(values + scores[beams], beams, tokens, count)


def of_logits(
    logits: Array, scores: Array, count: int, steps: Sequence[Processor], texts: Sequence[Array], number: int
) -> Candidates:
    """The ``count`` largest sums of a beam's score and a log probability, each row read while it is in the cache.

    Args:
        logits: float32 [K, V], which is changed to log probabilities as the steps leave them.
        scores: float32 [K].
        count: How many to find, where there are as many.
        steps: What is done to log probabilities, with the K ``texts`` and the ``number`` of the new token.
    """
    beams, vocabulary = logits.shape
    parts, room = vocabulary // _PART, np.empty(vocabulary, logits.dtype)
    largest, norms = np.empty((beams, parts), logits.dtype), np.zeros((2, beams, 1), logits.dtype)
    for beam, row in enumerate(logits):
        norm = _norm(row, room)
        if steps:
            _subtract(row, norm)
            processed(logits[beam : beam + 1], steps, texts[beam : beam + 1], number)
        else:  # only candidates are divided by the sum
            norms[:, beam, 0] = norm
        largest[beam] = _of_parts(np.maximum, row, parts)
    kept, part = np.nonzero(_reach(_subtract(largest, norms) + scores[:, None], count))
    rest = np.arange(parts * _PART, vocabulary)
    rows = np.concatenate([np.repeat(kept, _PART), np.repeat(np.arange(beams), len(rest))])
    tokens = np.concatenate([(part[:, None] + parts * np.arange(_PART)).ravel(), np.tile(rest, beams)])
    totals = _subtract(logits[rows, tokens], norms[:, rows, 0]) + scores[rows]
    found = _reach(totals, count)
    return _sorted(totals[found], rows[found], tokens[found], count)


def _sorted(totals: Array, rows: Array, tokens: Array, count: int) -> Candidates:
    """The largest first; of equals, the first."""
    order = np.lexsort((tokens, rows, -totals))[:count]
    return Candidates(totals[order], rows[order], tokens[order])


def _reach(values: Array, count: int) -> Array:
    """Which are among the ``count`` largest, or as large as the last of them."""
    if count > values.size:
        return np.ones(values.shape, np.bool_)
    reached: Array = values >= np.partition(values.ravel(), -count)[-count]
    return reached


def _norm(row: Array, room: Array) -> tuple[Array, Array]:
    """The largest value, and the logarithm of the sum of all others' powers over its own."""
    top = row.max()
    powers = np.exp(np.subtract(row, top, out=room), out=room)
    parts = len(row) // _PART
    total = _of_parts(np.add, powers, parts).sum() + powers[parts * _PART :].sum()
    return top, np.log(total)


def _subtract(values: Array, norm: Sequence[Array] | Array) -> Array:
    """Log probabilities of logits; in place, and in the order in which others compute them."""
    values -= norm[0]
    values -= norm[1]
    return values


def _of_parts(reduced: np.ufunc, row: Array, parts: int) -> Array:
    """Of every ``parts``-th value, so many times; in two steps, which takes half the time of one."""
    once = reduced.reduce(row[: parts * _PART].reshape(_STEP, -1), axis=0)
    twice: Array = reduced.reduce(once.reshape(_STEP, parts), axis=0)
    return twice
