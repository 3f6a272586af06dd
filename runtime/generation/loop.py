"""Greedy decoding and sampling: a token for every row at a time, and rows leave when they are finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadUsage
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.processors import bans, processed, processors
from onnxsmith.runtime.generation.ranked import Ranked
from onnxsmith.runtime.generation.rows import Row, texts_of
from onnxsmith.runtime.generation.sampling import Sampler

Array = NDArray[Any]
_UNFORCED: dict[str, Any] = {"forced_bos_token_id": None, "forced_eos_token_id": ()}


class Chooser(Protocol):
    """Chooses a token for each row that is under way, of those ``active`` int64 [b]; ``number`` is the new token's."""

    def wanted(self, active: Array, number: int) -> int:
        """How many ranked tokens of each row will do, asked for before the decoder's run; 0 for all logits."""

    def __call__(self, found: Array, ranked: Ranked | None, active: Array, number: int) -> Array:
        """Tokens int64 [b], of what the decoder gives and has ranked."""


def generate_rows(decoder: Decoder, first: Array, rows: Sequence[Row], choose: Chooser) -> Iterator[list[str]]:
    """Fill the rows; gives the new piece of text of each, after every token.

    Args:
        decoder: Has read the prompts, row by row.
        first: What it gave for them.
        rows: At least one.
        choose: Says what they are filled with.
    """
    active, found, number = np.arange(len(rows)), first, 0
    while True:
        tokens = choose(found, decoder.ranked, active, number)
        pieces = [""] * len(rows)
        for row, token in zip(active.tolist(), tokens.tolist(), strict=True):
            pieces[row] = rows[row].add(token)
        yield pieces
        going = np.flatnonzero([rows[row].reason is None for row in active.tolist()])
        if not going.size:
            return
        if going.size < active.size:
            decoder.select(going)
            active, tokens = active[going], tokens[going]
        number += 1
        decoder.wanted = choose.wanted(active, number)
        found = decoder.step(tokens)


def chooser(config: GenerationConfig, rows: Sequence[Row], limit: int) -> tuple[Chooser, bool]:
    """How the settings choose, and whether the graph itself can: its best token counts wherever none is forced."""
    if not config.do_sample and not processors(replace(config, **_UNFORCED), limit):
        return _Given(config, rows, limit), True
    return _Chosen(config, rows, limit), False


@dataclass(frozen=True)
class _Given:
    """The graph's own tokens int64 [b], but where ``processors`` force others at the start and at the end."""

    config: GenerationConfig
    rows: Sequence[Row]
    limit: int

    def wanted(self, active: Array, number: int) -> int:
        return 0

    def __call__(self, found: Array, ranked: Ranked | None, active: Array, number: int) -> Array:
        tokens = found.copy()
        if self.config.forced_bos_token_id is not None:
            tokens[[len(text) == 1 for text in texts_of(self.rows, active)]] = self.config.forced_bos_token_id
        if self.config.forced_eos_token_id and number == self.limit - 1:
            tokens[:] = min(self.config.forced_eos_token_id)  # of equal logits the first
        return tokens


class _Chosen:
    """The best token, or one that is drawn, of what the settings leave."""

    def __init__(self, config: GenerationConfig, rows: Sequence[Row], limit: int) -> None:
        self._rows, self._steps = rows, processors(config, limit)
        self._sampler = Sampler(config, len(rows)) if config.do_sample else None
        self._bans: list[set[int]] | None = None  # of the rows under way, where no more is asked for

    def wanted(self, active: Array, number: int) -> int:
        enough = 1 if self._sampler is None else self._sampler.enough
        self._bans = bans(self._steps, texts_of(self._rows, active), number) if enough else None
        return 0 if self._bans is None else enough + max(map(len, self._bans))

    def __call__(self, found: Array, ranked: Ranked | None, active: Array, number: int) -> Array:
        best = [] if ranked is None or self._bans is None else ranked.without(self._bans)
        if best and all(self._is_shown(values) for values, _ in best):
            places = self._pick([values for values, _ in best], active)
            return np.array([tokens[place] for (_, tokens), place in zip(best, places, strict=True)])
        scores = processed(found, self._steps, texts_of(self._rows, active), number)
        if np.isneginf(scores.max(1)).any():
            raise BadUsage("the settings forbid every token here; allow some, or give a larger no_repeat_ngram_size")
        return self._pick(scores, active)

    def _is_shown(self, best: Array) -> bool:
        return self._sampler is None or self._sampler.is_shown(best)

    def _pick(self, scores: Iterable[Array], active: Array) -> Array:
        """Which of each row's scores, int64 [b]"""
        if self._sampler is None:
            return np.array([row.argmax() for row in scores])
        return self._sampler.draw(scores, active)
