"""Beam search with the scores of Hugging Face's ``generate``.

A text's score is the sum of its log probabilities over its number of new tokens to the power of the length penalty
(Wu et al. 2016, arXiv:1609.08144, section 7, with a simpler norm). A beam keeps its place among the K of its text, and
what continues another one takes a place that has become free: so most of the cache stays where it is.

Shapes: B texts, K beams, V vocabulary, N candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.runtime.generation.candidates import Candidates, of_logits, of_ranked
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.processors import bans, processors

Array = NDArray[Any]
_NEVER = -1e9  # the score of a beam that is none
Finished = Callable[[NDArray[np.int64]], bool]  # whether a text of new ids has come to its end


@dataclass(frozen=True)
class Hypothesis:
    """A finished text: its new ids, and its score."""

    score: float
    ids: tuple[int, ...]


@dataclass
class Search:
    """The beams of one text. ``ids`` int64 [K, n] are the new ids of the beams that go on, each in its place.

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

    def texts(self, prompt: Array) -> list[Array]:
        """The ids of each beam, int64 [K, n] with those of the prompt."""
        return [np.concatenate([prompt, ids]) for ids in self.ids]

    @property
    def wanted(self) -> int:
        """Candidates to look at: so many that K of them go on even where every beam can end."""
        return max(2, 1 + len(self.config.eos_token_id)) * self.config.num_beams

    def advance(self, found: Candidates, stops: Finished) -> tuple[Array, Array]:
        """A token further -> which beam each of the new ones continues, and how many new ids that one and the beam
        that was in this place before begin with alike, int64 [K] both.

        Only an ending among the K best candidates counts.
        """
        beams = self.config.num_beams
        texts = np.concatenate([self.ids[found.beams], found.tokens[:, None]], 1)
        ends = np.array([texts.shape[1] == self.limit or stops(text) for text in texts])
        for n in np.flatnonzero(ends[:beams]):
            self._keep(Hypothesis(self._normed(found.totals[n], texts.shape[1]), tuple(texts[n].tolist())))
        going = np.concatenate([np.flatnonzero(~ends), np.flatnonzero(ends)])[:beams]
        going = going[_places(found.beams[going])]
        parents, before = found.beams[going], self.ids
        self.ids, self.scores = texts[going], found.totals[going]
        self.over = bool(ends.all()) or self._is_settled()
        return parents, (before == before[parents]).cumprod(1).sum(1)

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
        return self._normed(self.scores.max(), length) <= self.done[-1].score

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
    logits, live, banned = first[copies], list(range(len(prompts))), None
    while True:
        number, moves = searches[live[0]].ids.shape[1], []
        for i, n in enumerate(live):
            search, rows = searches[n], slice(i * beams, (i + 1) * beams)
            if banned is not None and decoder.ranked is not None:
                found = of_ranked(decoder.ranked.of(rows), search.scores, search.wanted, banned[rows])
            else:
                texts = search.texts(prompts[n])
                found = of_logits(logits[rows], search.scores, search.wanted, steps, texts, number)
            parents, same = search.advance(found, stops)
            moves += [] if search.over else [(i * beams + parents, len(prompts[n]) + same)]
        yield
        live = [n for n in live if not searches[n].over]
        if not live:
            return
        decoder.select(*map(np.concatenate, zip(*moves, strict=True)))
        banned = bans(steps, [text for n in live for text in searches[n].texts(prompts[n])], number + 1)
        decoder.wanted = 0 if banned is None else searches[0].wanted + max(map(len, banned))
        logits = decoder.step(np.concatenate([searches[n].ids[:, -1] for n in live]))


def _places(parents: Array) -> Array:
    """An order of beams [K] in which the first that continues a beam has its place; the others take what is left."""
    order = np.full(len(parents), -1)
    for n, parent in enumerate(parents.tolist()):
        if order[parent] < 0:
            order[parent] = n
    order[order < 0] = [n for n, parent in enumerate(parents.tolist()) if order[parent] != n]
    return order
