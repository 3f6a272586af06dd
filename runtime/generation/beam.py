"""Beam search with the scores of Hugging Face's ``generate``.

A text's score is the sum of its log probabilities over its number of new tokens to the power of the length penalty
(Wu et al. 2016, arXiv:1609.08144, section 7, with a simpler norm). Shapes: B texts, K beams, V vocabulary, N
candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.loop import processed
from onnxsmith.runtime.generation.processors import processors

Array = NDArray[Any]
_NEVER = -1e9  # the score of a beam that is none
_PART = 256  # values, of which the largest is found at once
Finished = Callable[[NDArray[np.int64]], bool]  # whether a text of new ids has come to its end


@dataclass(frozen=True)
class Hypothesis:
    """A finished text: its new ids, and its score."""

    score: float
    ids: tuple[int, ...]


@dataclass
class Search:
    """The beams of one text. ``ids`` int64 [K, n] are the new ids of the beams that go on, the best first.

    ``scores`` float32 [K] are their sums of log probabilities; at the start only one beam counts, as all are the same.
    ``done`` has at most K finished texts, the best first; the search is ``over`` when no beam can get among them.
    """

    config: GenerationConfig
    limit: int
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    done: list[Hypothesis] = field(default_factory=list)
    over: bool = False

    @classmethod
    def start(cls, config: GenerationConfig, limit: int) -> Search:
        """The beams of a text of which nothing is generated yet."""
        scores = np.full(config.num_beams, _NEVER, np.float32)
        scores[0] = 0
        return cls(config, limit, np.zeros((config.num_beams, 0), np.int64), scores)

    def advance(self, log_probabilities: Array, stops: Finished) -> Array:
        """A token further, by float32 [K, V], which is changed -> which beam each of the new ones continues, int64 [K]

        Enough candidates are looked at that K of them go on even where every beam can end. Only an ending among the K
        best counts.
        """
        beams, vocabulary = log_probabilities.shape
        log_probabilities += self.scores[:, None]
        totals = log_probabilities.ravel()
        order = _top(totals, max(2, 1 + len(self.config.eos_token_id)) * beams)
        parents, tokens = np.divmod(order, vocabulary)
        texts = np.concatenate([self.ids[parents], tokens[:, None]], 1)
        ends = np.array([texts.shape[1] == self.limit or stops(text) for text in texts])
        for n in np.flatnonzero(ends[:beams]):
            self._keep(Hypothesis(self._normed(totals[order[n]], texts.shape[1]), tuple(texts[n].tolist())))
        going = np.concatenate([np.flatnonzero(~ends), np.flatnonzero(ends)])[:beams]
        self.ids, self.scores = texts[going], totals[order[going]]
        self.over = bool(ends.all()) or self._is_settled()
        chosen: Array = parents[going]
        return chosen

    def _keep(self, found: Hypothesis) -> None:
        merged = sorted([*self.done, found], key=lambda one: -one.score)  # stable: of equals, the earlier
        self.done = merged[: self.config.num_beams]

    def _is_settled(self) -> bool:
        """Whether the finished texts will stay: K are there, and the best beam would not come among them.

        ``early_stopping`` says how that is judged: True does not ask what beams could still reach, False takes their
        present length, and "never" the length that is best for them.
        """
        if len(self.done) < self.config.num_beams:
            return False
        if self.config.early_stopping is True:
            return True
        longer_is_better = self.config.early_stopping == "never" and self.config.length_penalty > 0
        length = self.limit if longer_is_better else self.ids.shape[1]
        return self._normed(self.scores[0], length) <= self.done[-1].score

    def _normed(self, score: np.float32, length: int) -> float:
        return float(score / np.float32(length**self.config.length_penalty))


def search_beams(
    decoder: Decoder, first: Array, prompts: Sequence[Array], searches: Sequence[Search], stops: Finished
) -> Iterator[None]:
    """Bring searches that have just started to their end; stops after every token.

    Args:
        decoder: Has read the prompts, row by row; it is handed over to the beams, K rows for each text.
        first: Logits that it gave for them, float32 [B, V].
        prompts: Their ids, int64 [n] each.
        searches: One of each, all with the same settings.
        stops: Whether a text is finished by its last token.
    """
    config, limit = searches[0].config, searches[0].limit
    beams, steps = config.num_beams, processors(config, limit)
    copies = np.repeat(np.arange(len(prompts)), beams)
    decoder.select(copies)
    logits, live = first[copies], list(range(len(prompts)))
    while True:
        texts = [np.concatenate([prompts[n], ids]) for n in live for ids in searches[n].ids]
        scored = processed(_log_softmax(logits), steps, texts, searches[live[0]].ids.shape[1])
        parents = [searches[n].advance(scored[i * beams : (i + 1) * beams], stops) for i, n in enumerate(live)]
        yield
        rows = [beams * i + parents[i] for i, n in enumerate(live) if not searches[n].over]
        live = [n for n in live if not searches[n].over]
        if not live:
            return
        decoder.select(np.concatenate(rows), shared=min(len(prompts[n]) for n in live))
        logits = decoder.step(np.concatenate([searches[n].ids[:, -1] for n in live]))


def _top(values: Array, count: int) -> Array:
    """Where the largest values are, the largest first; of equals, the first.

    The values are split into parts. Those that reach the ``count``-th largest part's largest value are at least
    ``count`` and hardly more, and to find them takes half the time of partitioning all.
    """
    parts = len(values) // _PART
    if count <= parts:
        largest = values[: parts * _PART].reshape(_PART, parts).max(0)  # of every parts-th value: the quicker way
        found = np.flatnonzero(values >= np.partition(largest, -count)[-count])
    else:
        found = np.arange(len(values))
    best: Array = found[np.argsort(-values[found], kind="stable")][:count]
    return best


def _log_softmax(logits: Array) -> Array:
    """In place. A row at a time stays in the processor's cache: a third of the time for 32 rows of 58,000."""
    powers = np.empty_like(logits[0])
    for row in logits:
        row -= row.max()
        row -= np.log(np.exp(row, out=powers).sum())
    return logits
