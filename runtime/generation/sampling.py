"""Drawing the next token from logits [B, V]: temperature, then top-k, top-p and min-p, as Hugging Face orders them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.runtime.generation.config import GenerationConfig

Array = NDArray[Any]


def candidates(logits: Array, config: GenerationConfig) -> tuple[Array, Array]:
    """The tokens of one row of logits [V] that may be drawn, the likeliest first, and their probabilities: two [N].

    top-k keeps the k best (Fan et al. 2018, arXiv:1805.04833), top-p the fewest that have p of the probability
    (Holtzman et al. 2019, arXiv:1904.09751), min-p those that have so much of the best one's (Nguyen et al. 2024,
    arXiv:2407.01082).
    """
    scaled = logits.astype(np.float64) / config.temperature
    kept = _best(scaled, config.top_k)
    order = kept[np.argsort(-scaled[kept], kind="stable")]
    weights = np.exp(scaled[order] - scaled[order[0]])
    weights /= weights.sum()
    before = np.cumsum(weights) - weights  # of what is likelier
    wanted = (before < config.top_p) & (weights >= config.min_p * weights[0]) & (weights > 0)
    return order[wanted], weights[wanted] / weights[wanted].sum()


def _best(scores: Array, k: int) -> Array:
    """The k best, and those that are equal to the last of them; all for a k of 0."""
    if not 0 < k < len(scores):
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, -k)[-k])


class Sampler:
    """Draws for ``rows`` rows. A row's draws do not depend on which others are still under way."""

    def __init__(self, config: GenerationConfig, rows: int) -> None:
        self._config, self._rows = config, rows
        self._random = np.random.default_rng(config.seed)

    @property
    def enough(self) -> int:
        """How many of the best tokens show which may be drawn; 0 where only all do."""
        return self._config.top_k and self._config.top_k + 1

    def is_shown(self, best: Array) -> bool:
        """Whether the best logits of a row, the largest first, are all that may be drawn, and no other equals them."""
        k = self._config.top_k
        return bool(best[k - 1] > best[-1])

    def draw(self, logits: Iterable[Array], rows: Array) -> Array:
        """A token for each of ``rows`` [b] of the first ones, by its logits [V] -> int64 [b]"""
        chances = self._random.random(self._rows)[rows]
        return np.array([self._one(row, chance) for row, chance in zip(logits, chances, strict=True)])

    def _one(self, logits: Array, chance: float) -> int:
        tokens, probabilities = candidates(logits, self._config)
        place = int(np.searchsorted(np.cumsum(probabilities), chance, side="right"))
        return int(tokens[min(place, len(tokens) - 1)])
