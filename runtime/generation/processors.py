"""What is done to logits before a token is chosen, in Hugging Face's order (``generation/logits_process.py`` there).

Shapes: B rows, V vocabulary. A row's ``text`` is the prompt's ids and what was generated, as int64 [n].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onnxsmith.runtime.generation.config import GenerationConfig

Array = NDArray[Any]
Texts = Sequence[Array]
Processor = Callable[[Array, Texts, int], None]  # logits [B, V], changed in place; texts; number of the new token
Ids = Callable[[Array, int], Sequence[int]]  # of a row: its text, number of the new token


@dataclass(frozen=True)
class Ban:
    """Tokens that must not come."""

    ids: Ids

    def __call__(self, logits: Array, texts: Texts, number: int) -> None:
        for row, text in zip(logits, texts, strict=True):
            row[list(self.ids(text, number))] = -np.inf


@dataclass(frozen=True)
class Force:
    """Tokens of which one must come, where there are any."""

    ids: Ids

    def __call__(self, logits: Array, texts: Texts, number: int) -> None:
        for row, text in zip(logits, texts, strict=True):
            if ids := list(self.ids(text, number)):
                row[:] = -np.inf
                row[ids] = 0


def processors(config: GenerationConfig, limit: int) -> list[Processor]:
    """What the settings ask for, where at most ``limit`` tokens are generated."""
    c = config
    begin = 0 if c.forced_bos_token_id is None else 1
    first = () if c.forced_bos_token_id is None else (c.forced_bos_token_id,)
    steps: tuple[tuple[object, Processor], ...] = (
        (c.repetition_penalty != 1, lambda x, texts, _: _penalize(x, texts, c.repetition_penalty)),
        (c.no_repeat_ngram_size, Ban(lambda text, _: _repeats(text, c.no_repeat_ngram_size))),
        (c.bad_words_ids, Ban(lambda text, _: _last_of_words(text, c.bad_words_ids))),
        (c.min_new_tokens and c.eos_token_id, Ban(lambda _, n: c.eos_token_id if n < c.min_new_tokens else ())),
        (first, Force(lambda text, _: first if len(text) == 1 else ())),  # behind a start of one token, as translators
        (c.forced_eos_token_id, Force(lambda _, n: c.forced_eos_token_id if n == limit - 1 else ())),
        (c.suppress_tokens, Ban(lambda _, __: c.suppress_tokens)),
        (c.begin_suppress_tokens, Ban(lambda text, n: c.begin_suppress_tokens if _begins(text, n, begin) else ())),
    )
    return [step for wanted, step in steps if wanted]


def processed(logits: Array, steps: Sequence[Processor], texts: Texts, number: int) -> Array:
    """The logits [B, V] after all steps; they may be changed in place."""
    for step in steps:
        step(logits, texts, number)
    return logits


def bans(steps: Sequence[Processor], texts: Texts, number: int) -> list[set[int]] | None:
    """The tokens that the steps ban, of each row; None where they do more than that."""
    if any(not isinstance(step, Ban) and not _rests(step, texts, number) for step in steps):
        return None
    return [{id for step in steps if isinstance(step, Ban) for id in step.ids(text, number)} for text in texts]


def _rests(step: Processor, texts: Texts, number: int) -> bool:
    return isinstance(step, Force) and not any(step.ids(text, number) for text in texts)


def _penalize(logits: Array, texts: Texts, penalty: float) -> None:
    """Tokens of the text become less likely. Keskar et al. 2019, arXiv:1909.05858."""
    for row, text in zip(logits, texts, strict=True):
        seen = row[text]
        row[text] = np.where(seen < 0, seen * np.float32(penalty), seen / np.float32(penalty))


def _repeats(text: Array, size: int) -> Sequence[int]:
    """What would make a run of ``size`` tokens occur twice."""
    if len(text) < size:
        return ()
    windows = sliding_window_view(text, size)
    same = (windows[:, :-1] == text[len(text) - size + 1 :]).all(1)
    repeats: list[int] = windows[same, -1].tolist()
    return repeats


def _last_of_words(text: Array, words: Sequence[Sequence[int]]) -> Sequence[int]:
    """Of each word the last token, where its others have just been written."""
    end = [(last, len(text) - len(start), start) for *start, last in words]
    return [last for last, at, start in end if at >= 0 and list(text[at:]) == start]


def _begins(text: Array, number: int, begin: int) -> bool:
    """Whether the token is the first, or the second one where the first is forced."""
    return number == (begin if len(text) - number == 1 else 0)
