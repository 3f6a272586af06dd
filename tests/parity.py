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

    def texts(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Each row without its padding, as keyword arguments [1, S] of the reference."""
        for row, mask in enumerate(self.attention_mask.bool()):
            yield (
                row,
                {
                    "input_ids": self.input_ids[row, mask][None],
                    "attention_mask": self.attention_mask[row, mask][None],
                    "token_type_ids": self.token_type_ids[row, mask][None],
                },
            )


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
    return Batch(torch.where(mask == 1, ids, pad), mask, segments * mask)


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


def check(found: Checkpoint, theirs: Any, batch: Batch, *inputs: str) -> None:
    """Ours on the padded batch against theirs on each of its texts alone, on the positions that count.

    Without padding there is no question of how the reference counts positions, or which token it takes for the first.
    ``inputs`` are what theirs takes besides ids and mask.
    """
    wanted = ("input_ids", "attention_mask", *inputs)
    with torch.no_grad():
        results = found.module(*(getattr(batch, spec.name) for spec in found.task.inputs))
        results = results if isinstance(results, tuple) else (results,)
        for row, text in batch.texts():
            expected = theirs(**{name: text[name] for name in wanted})
            for result, spec in zip(results, found.task.outputs, strict=True):
                per_token = "sequence" in spec.dims
                mine = result[row][batch.attention_mask[row].bool()] if per_token else result[row]
                assert relative_rms(mine, expected[spec.name][0]) < LIMIT, (spec.name, row)


def relative_rms(found: Tensor, expected: Tensor) -> float:
    """RMS of the error over RMS of the reference."""
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).square().mean().sqrt() / expected.double().square().mean().sqrt())
