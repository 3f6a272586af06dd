"""What a graph with a cache computes in other ways as well, held to the logits that it gives: a token, ranks, beams.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.passes.cache.record import Cache
from onnxsmith.runtime.parity import log_softmax

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Run = Callable[[Feeds], Mapping[str, Array]]
_RANKED = 4  # tokens that are asked for
_BEAMS = 2
_EQUAL = 1e-4  # of the largest logit: what sums of some thousand products in another order may differ by


def wrong_rows(cache: Cache, run: Run, feeds: Feeds, given: Feeds, last: Array, *, first: bool) -> NDArray[np.bool_]:
    """Rows [B] for which a run in another way finds something else than what was ``given`` for these feeds.

    ``last`` are the logits [B, V] of each row's last token there. A run that fails is wrong for all. Only on the
    ``first`` call of a text is more compared than the token: what else there is does not depend on the past.
    """
    wrong = _token(cache, run, feeds, last)
    return wrong | _ranks(cache, run, feeds, last) | _beams(cache, run, feeds, given) if first else wrong


def _token(cache: Cache, run: Run, feeds: Feeds, last: Array) -> NDArray[np.bool_]:
    """Whether the token that is given alone is another than the best."""
    if cache.greedy is None or cache.next_token is None:
        return np.zeros(len(last), np.bool_)
    found = run({**feeds, cache.greedy: np.array(True)})
    if not found:
        return np.ones(len(last), np.bool_)
    return _far(last.max(axis=-1), last[np.arange(len(last)), found[cache.next_token][:, 0]], last)


def _ranks(cache: Cache, run: Run, feeds: Feeds, last: Array) -> NDArray[np.bool_]:
    """Whether the tokens that are ranked are others than the best, or their scores no log probabilities."""
    if cache.best is None:
        return np.zeros(len(last), np.bool_)
    found = run({**feeds, cache.best.count: np.array([_RANKED])})
    if not found:
        return np.ones(len(last), np.bool_)
    scores, tokens = found[cache.best.scores][:, 0], found[cache.best.tokens][:, 0]
    expected = log_softmax(last)
    best = -np.sort(-np.partition(expected, -_RANKED, axis=-1)[:, -_RANKED:])
    same = np.take_along_axis(expected, tokens, -1)
    return _far(scores, best, expected) | _far(scores, same, expected)


def _beams(cache: Cache, run: Run, feeds: Feeds, given: Feeds) -> NDArray[np.bool_]:
    """Whether rows that share their source come to other logits than each with one of its own."""
    logits = given[cache.logits]
    if cache.cross is None or not cache.cross.shared:
        return np.zeros(len(logits), np.bool_)
    shared = {*cache.cross.past, cache.cross.mask}
    found = run({name: x if name in shared else np.repeat(x, _BEAMS, 0) for name, x in feeds.items()})
    if not found:
        return np.ones(len(logits), np.bool_)
    return _far(found[cache.logits].reshape(len(logits), _BEAMS, *logits.shape[1:]), logits[:, None], logits)


def _far(found: Array, expected: Array, scale: Array) -> NDArray[np.bool_]:
    """Rows of which something differs by more than rounding does; NaN is left to the comparison with the original."""
    apart, size = (np.abs(x).reshape(len(scale), -1).max(axis=1) for x in (found - expected, scale))
    return np.asarray(apart > _EQUAL * size)
