"""Speculative decoding without a second model: what followed the last words before is guessed to follow again.

Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding; guesses are checked as by Leviathan et al. 2023
(arXiv:2211.17192), for greedy decoding, where the tokens stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.processors import Processor, processed, processors
from onnxsmith.runtime.generation.rows import Row

Array = NDArray[Any]


def generate_guessing(
    decoder: Decoder, first: Array, row: Row, config: GenerationConfig, limit: int
) -> Iterator[list[str]]:
    """Fill one row greedily, with several guessed tokens checked in one run; gives the text piece by piece.

    ``decoder`` has read the prompt, gave ``first`` [1, V] for it, and gives the logits of every new token.
    """
    steps = processors(config, limit)
    token = _best(first, row, steps)
    while True:
        yield [row.add(token)]
        if row.reason:
            return
        left = limit - len(row.new) - 1
        guesses = guess(row.ids, config.max_matching_ngram_size, min(config.prompt_lookup_num_tokens, left))
        logits = decoder.extend_whole([token, *guesses])
        for place, guessed in enumerate([*guesses, None]):
            token = _best(logits[place : place + 1], row, steps)
            if token != guessed:
                break
            yield [row.add(token)]
            if row.reason:
                return
        decoder.truncate(len(row.ids))


def guess(ids: Array, longest: int, count: int) -> Sequence[int]:
    """Up to ``count`` ids that followed, where the last ids stood before; of ``longest`` of them, or else of fewer."""
    for size in range(min(longest, len(ids) - 1), 0, -1):
        before = sliding_window_view(ids[:-1], size)
        places = np.flatnonzero((before == ids[-size:]).all(1))
        if places.size:
            start = places[-1] + size
            found: list[int] = ids[start : start + count].tolist()
            return found
    return []


def _best(logits: Array, row: Row, steps: Sequence[Processor]) -> int:
    return int(processed(logits.astype(np.float32), steps, [row.ids], len(row.new)).argmax())
