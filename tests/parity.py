"""Ours beside the transformers library: the same weights, read from what ``save_pretrained`` writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onnxsmith.models.checkpoint import Checkpoint, load_checkpoint

LENGTHS = (9, 5, 1)
LIMIT = 1e-5


@dataclass(frozen=True)
class Batch:
    """Texts of different lengths padded on one side: everything is int64 [B, S]."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    position_ids: Tensor

    @property
    def counts(self) -> Tensor:
        """bool [B, S], the positions that count."""
        return self.attention_mask.bool()


def batches(vocabulary: int, *, first: int = 4, pad: int = 0, lengths: tuple[int, ...] = LENGTHS) -> Iterator[Batch]:
    """Unpadded, right-padded and left-padded; token ids from ``first``, and ``pad`` at padding."""
    yield _batch([lengths[0]] * 2, "right", vocabulary, first, pad)
    for side in ("right", "left"):
        yield _batch(list(lengths), side, vocabulary, first, pad)


def _batch(lengths: list[int], side: str, vocabulary: int, first: int, pad: int) -> Batch:
    generator = torch.Generator().manual_seed(sum(lengths))
    shape = (len(lengths), max(lengths))
    mask = torch.zeros(shape, dtype=torch.int64)
    for row, length in zip(mask, lengths, strict=True):
        row[:length] = 1
    mask = mask if side == "right" else mask.flip(1)
    ids = torch.randint(first, vocabulary, shape, generator=generator)
    segments = torch.randint(0, 2, shape, generator=generator)
    return Batch(torch.where(mask == 1, ids, pad), mask, segments * mask, (mask.cumsum(1) - 1).clamp(min=0))


def ours(theirs: Any, folder: Path) -> Checkpoint:
    """Our model with the weights of theirs, by way of a folder."""
    theirs.save_pretrained(folder)
    return load_checkpoint(folder)


def randomized(model: Any, seed: int = 0) -> Any:
    """The model, not training, with weights large enough that every part shows in the outputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.dim() == 1) * 0.5)
    return model.eval()


def relative_rms(found: Tensor, expected: Tensor) -> float:
    """RMS of the error over RMS of the reference."""
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).square().mean().sqrt() / expected.double().square().mean().sqrt())
