"""Greedy decoding and sampling: a token for every row at a time, and rows leave when they are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadUsage
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.processors import Processor, processors
from onnxsmith.runtime.generation.rows import Row, texts_of
from onnxsmith.runtime.generation.sampling import Sampler

Array = NDArray[Any]
_UNFORCED: dict[str, Any] = {"forced_bos_token_id": None, "forced_eos_token_id": ()}
Choose = Callable[[Array, Array, int], Array]  # what the decoder gives; rows under way; number of the new token


def generate_rows(decoder: Decoder, first: Array, rows: Sequence[Row], choose: Choose) -> Iterator[list[str]]:
    """Fill the rows; gives the new piece of text of each, after every token.

    Args:
        decoder: Has read the prompts, row by row.
        first: What it gave for them.
        rows: At least one.
        choose: Makes tokens int64 [b] of what the decoder gives for the rows that are under way.
    """
    active, found, number = np.arange(len(rows)), first, 0
    while True:
        tokens = choose(found, active, number)
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
        found, number = decoder.step(tokens), number + 1


def chooser(config: GenerationConfig, rows: Sequence[Row], limit: int) -> tuple[Choose, bool]:
    """How the settings choose, and whether the graph itself can: its best token counts wherever none is forced."""
    if not config.do_sample and not processors(replace(config, **_UNFORCED), limit):
        return _best_or_forced(config, rows, limit), True
    steps = processors(config, limit)
    pick = Sampler(config, len(rows)).draw if config.do_sample else _best

    def choose(logits: Array, active: Array, number: int) -> Array:
        scores = processed(logits, steps, texts_of(rows, active), number)
        if np.isneginf(scores.max(1)).any():
            raise BadUsage("the settings forbid every token here; allow some, or give a larger no_repeat_ngram_size")
        return pick(scores, active)

    return choose, False


def _best_or_forced(config: GenerationConfig, rows: Sequence[Row], limit: int) -> Choose:
    """By tokens int64 [b], as ``processors`` force them at the start and at the end."""

    def choose(found: Array, active: Array, number: int) -> Array:
        tokens = found.copy()
        if config.forced_bos_token_id is not None:
            tokens[[len(text) == 1 for text in texts_of(rows, active)]] = config.forced_bos_token_id
        if config.forced_eos_token_id and number == limit - 1:
            tokens[:] = min(config.forced_eos_token_id)  # of equal logits the first
        return tokens

    return choose


def processed(logits: Array, steps: Sequence[Processor], texts: Sequence[Array], number: int) -> Array:
    """The logits [B, V] after all steps; they may be changed in place."""
    for step in steps:
        step(logits, texts, number)
    return logits


def _best(logits: Array, rows: Array) -> Array:
    best: Array = logits.argmax(1)
    return best
