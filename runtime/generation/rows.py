"""The texts under way: what each has so far, and when it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.result import Reason
from onnxsmith.runtime.generation.text import Decode, Detokenizer, StopTexts


class Row:
    """One text. ``limit`` is how many tokens it may get; ``decode`` turns ids to text, where there is a tokenizer.

    ``reason`` is None while it is under way; ``score`` is a beam search's.
    """

    def __init__(self, prompt: Sequence[int], config: GenerationConfig, limit: int, decode: Decode | None) -> None:
        self._config, self._limit = config, limit
        self._ids = np.empty(len(prompt) + limit, np.int64)
        self._ids[: len(prompt)] = prompt
        self._start = self._end = len(prompt)
        self._words = Detokenizer(decode, prompt) if decode else None
        self._stops = StopTexts(config.stop_strings)
        self._pieces: list[str] = []
        self.reason: Reason | None = None
        self.score: float | None = None

    @property
    def ids(self) -> NDArray[np.int64]:
        """The prompt and what was generated, int64 [n]."""
        return self._ids[: self._end]

    @property
    def new(self) -> tuple[int, ...]:
        """The ids that were generated."""
        return tuple(self._ids[self._start : self._end].tolist())

    @property
    def text(self) -> str:
        """Their text, what is not settled yet included."""
        rest = self._stops.held + self._words.rest if self._words and not self.reason else ""
        return "".join(self._pieces) + rest

    def add(self, token: int) -> str:
        """Take a token, and give the text that is now settled; ``reason`` is set when it was the last."""
        self._ids[self._end] = token
        self._end += 1
        piece = self._stops.add(self._words.add(token)) if self._words else ""
        if token in self._config.eos_token_id or self._stops.found:
            self.reason = "stop"
        elif self._end - self._start == self._limit:
            self.reason = "length"
        if self.reason and self._words:
            piece += self._stops.add(self._words.rest) + self._stops.held
        self._pieces.append(piece)
        return piece


def texts_of(rows: Sequence[Row], active: NDArray[Any]) -> list[NDArray[np.int64]]:
    """The ids of the rows that are still under way."""
    return [rows[row].ids for row in active]
