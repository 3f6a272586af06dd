"""Masked language modelling and next-sentence prediction. Devlin et al. 2018, arXiv:1810.04805, section 3.1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from onnxsmith.models.objectives.losses import IGNORED

IS_NEXT, NOT_NEXT = 0, 1
Document = Sequence[Sequence[int]]  # sentences of token ids


def mask_tokens(
    ids: Tensor,
    eligible: Tensor,
    vocab_size: int,
    mask_id: int,
    generator: Generator,
    rate: float = 0.15,
    masked: float = 0.8,
    replaced: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Hide some tokens: ids and ``eligible`` (bool: no padding, no special token), both [B, S] -> inputs and labels.

    Of each row ``rate`` of the eligible tokens are to be told, one at least. Of those ``masked`` become ``mask_id``,
    ``replaced`` another token of the vocabulary by chance, and the rest stay; labels are IGNORED elsewhere.
    """
    order = torch.rand(ids.shape, generator=generator).masked_fill(~eligible, 2.0).argsort(1).argsort(1)
    counts = (eligible.sum(1) * rate).round().clamp(min=1)
    chosen = eligible & (order < counts[:, None])
    fate = torch.rand(ids.shape, generator=generator)
    by_chance = torch.randint(vocab_size, ids.shape, generator=generator)
    inputs = torch.where(chosen & (fate < masked), mask_id, ids)
    inputs = torch.where(chosen & (fate >= masked) & (fate < masked + replaced), by_chance, inputs)
    return inputs, torch.where(chosen, ids, IGNORED)


def sentence_pair(
    documents: Sequence[Document], document: int, sentence: int, generator: Generator
) -> tuple[list[int], list[int], int]:
    """A sentence, what stands behind it, and whether that really follows: half the time it is of another document.

    ``sentence`` must not be the last of its document, and there must be two documents.
    """
    first = list(documents[document][sentence])
    if torch.rand((), generator=generator) < 0.5:
        return first, list(documents[document][sentence + 1]), IS_NEXT
    other = int(torch.randint(len(documents) - 1, (), generator=generator))
    others = documents[other + (other >= document)]
    return first, list(others[int(torch.randint(len(others), (), generator=generator))]), NOT_NEXT
