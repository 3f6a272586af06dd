"""Greedy decoding through the whole model, without a cache: slow for long texts, and the same on every runtime.

Shapes: N texts, S source length, T target length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxsmith.models.running import RunFeeds

Ids = NDArray[np.int64]


def translate(run: RunFeeds, ids: Ids, mask: Ids, *, start: int, end: int, limit: int) -> list[list[int]]:
    """Source ids and mask [N, S] -> for each the most likely next token again and again, up to ``end`` or ``limit``.

    ``run`` is an encoder-decoder's whole task, from two texts to logits; ``start`` is what its decoder reads first.
    """
    target = np.full((len(ids), 1), start, np.int64)
    done = np.zeros(len(ids), bool)
    while target.shape[1] <= limit and not done.all():
        feeds = {"input_ids": ids, "attention_mask": mask}
        target = _longer(run, {**feeds, "decoder_input_ids": target, "decoder_attention_mask": np.ones_like(target)})
        done |= target[:, -1] == end
    return [until(row[1:], end) for row in target.tolist()]


def _longer(run: RunFeeds, feeds: dict[str, Ids]) -> Ids:
    """What the decoder has read, [N, T], and one token more."""
    logits = run(feeds)["logits"]
    return np.concatenate((feeds["decoder_input_ids"], logits[:, -1:].argmax(-1)), axis=1)


def until(ids: Sequence[int], end: int) -> list[int]:
    """The ids before the first ``end``."""
    return list(ids[: list(ids).index(end)]) if end in ids else list(ids)


def sample(run: RunFeeds, prompt: Sequence[int], random: np.random.Generator, *, end: int, limit: int) -> list[int]:
    """A prompt and up to ``limit`` tokens behind it, each drawn as often as the model says, until ``end``.

    ``run`` is a language model's whole task, from a text to logits.
    """
    ids = list(prompt)
    while len(ids) < len(prompt) + limit and (len(ids) == len(prompt) or ids[-1] != end):
        read = np.array([ids])
        logits = run({"input_ids": read, "attention_mask": np.ones_like(read)})["logits"][0, -1].astype(np.float64)
        chances = np.exp(logits - logits.max())
        ids.append(int(random.choice(len(chances), p=chances / chances.sum())))
    return ids
