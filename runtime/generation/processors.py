"""What is done to logits before a token is chosen, in Hugging Face's order (``generation/logits_process.py`` there).

Shapes: B rows, V vocabulary. A row's ``text`` is the prompt's ids and what was generated, as int64 [n].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onnxsmith.runtime.generation.config import GenerationConfig

Array = NDArray[Any]
Texts = Sequence[Array]
Processor = Callable[[Array, Texts, int], None]  # logits [B, V], changed in place; texts; number of the new token


def processors(config: GenerationConfig, limit: int) -> list[Processor]:
    """What the settings ask for, where at most ``limit`` tokens are generated."""
    c = config
    begin = 0 if c.forced_bos_token_id is None else 1
    steps: tuple[tuple[object, Processor], ...] = (
        (c.repetition_penalty != 1, lambda x, texts, _: _penalize(x, texts, c.repetition_penalty)),
        (c.no_repeat_ngram_size, lambda x, texts, _: _ban_repeats(x, texts, c.no_repeat_ngram_size)),
        (c.bad_words_ids, lambda x, texts, _: _ban_words(x, texts, c.bad_words_ids)),
        (c.min_new_tokens and c.eos_token_id, lambda x, _, n: _ban(x, c.eos_token_id, n < c.min_new_tokens)),
        (c.forced_bos_token_id is not None, lambda x, texts, _: _force_first(x, texts, c.forced_bos_token_id)),
        (c.forced_eos_token_id, lambda x, _, n: _force(x, c.forced_eos_token_id, n == limit - 1)),
        (c.suppress_tokens, lambda x, _, n: _ban(x, c.suppress_tokens, True)),
        (c.begin_suppress_tokens, lambda x, texts, n: _ban_at(x, texts, c.begin_suppress_tokens, n, begin)),
    )
    return [step for wanted, step in steps if wanted]


def _penalize(logits: Array, texts: Texts, penalty: float) -> None:
    """Tokens of the text become less likely. Keskar et al. 2019, arXiv:1909.05858."""
    for row, text in zip(logits, texts, strict=True):
        seen = row[text]
        row[text] = np.where(seen < 0, seen * np.float32(penalty), seen / np.float32(penalty))


def _ban_repeats(logits: Array, texts: Texts, size: int) -> None:
    """No run of ``size`` tokens occurs twice."""
    for row, text in zip(logits, texts, strict=True):
        if len(text) < size:
            continue
        windows = sliding_window_view(text, size)
        same = (windows[:, :-1] == text[len(text) - size + 1 :]).all(1)
        row[windows[same, -1]] = -np.inf


def _ban_words(logits: Array, texts: Texts, words: Sequence[Sequence[int]]) -> None:
    """No word's last token where its others have just been written."""
    for row, text in zip(logits, texts, strict=True):
        for *start, last in words:
            if len(start) <= len(text) and list(text[len(text) - len(start) :]) == start:
                row[last] = -np.inf


def _ban(logits: Array, ids: Sequence[int], now: bool) -> None:
    if now:
        logits[:, list(ids)] = -np.inf


def _ban_at(logits: Array, texts: Texts, ids: Sequence[int], number: int, begin: int) -> None:
    """At the first token, or at the second one where the first is forced."""
    first = [begin if len(text) - number == 1 else 0 for text in texts]
    logits[np.ix_([row for row, at in enumerate(first) if at == number], list(ids))] = -np.inf


def _force(logits: Array, ids: Sequence[int], now: bool) -> None:
    if now:
        logits[:] = -np.inf
        logits[:, list(ids)] = 0


def _force_first(logits: Array, texts: Texts, id: int | None) -> None:
    """The token behind a start of one token, as translators have it for the target's language."""
    rows = [row for row, text in enumerate(texts) if len(text) == 1]
    logits[rows] = -np.inf
    logits[rows, id] = 0
