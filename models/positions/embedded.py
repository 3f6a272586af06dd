"""Positions that are added to the embeddings: learned ones, and sines and cosines.

Shapes: B batch, S sequence, E hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.positions.base import Positions


class LearnedPositions(Positions, nn.Embedding):
    """One trained vector per position. ``offset`` rows at the start of the table stand for no position.

    Gehring et al. 2017, arXiv:1705.03122; the offset is 2 in BART, and the padding id plus one in RoBERTa.
    """

    def __init__(self, rows: int, hidden: int, offset: int = 0) -> None:
        super().__init__(rows, hidden)
        self.offset = offset

    def forward(self, places: Tensor) -> Tensor:
        """[B, S] -> [B, S, E]"""
        return super().forward(places + self.offset if self.offset else places)

    def embed(self, x: Tensor, places: Tensor) -> Tensor:
        """[B, S, E] and [B, S] -> [B, S, E]"""
        return x + self(places)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Sinusoidal(Positions):
    """The vectors of ``sinusoidal``, for embeddings of ``hidden`` features."""

    hidden: int
    interleaved: bool = True

    def embed(self, x: Tensor, places: Tensor) -> Tensor:
        """[B, S, E] and [B, S] -> [B, S, E]"""
        return x + sinusoidal(places, self.hidden, interleaved=self.interleaved)


def sinusoidal(places: Tensor, hidden: int, *, interleaved: bool = True) -> Tensor:
    """Sines and cosines of wavelengths from 2 pi to 10000 * 2 pi: [B, S] -> float32 [B, S, E].

    Interleaved as in Vaswani et al. 2017 (arXiv:1706.03762), section 3.5; otherwise all sines come before the cosines,
    which is how Marian lays them out. Raises BadInput for an odd ``hidden``.
    """
    if hidden % 2:
        raise BadInput(f"sinusoidal positions need an even hidden size, not {hidden}")
    frequencies = torch.tensor([10000 ** (-i / hidden) for i in range(0, hidden, 2)], device=places.device)
    angles = places[:, :, None].float() * frequencies  # [B, S, E/2]
    if interleaved:
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(2)
    return torch.cat((angles.sin(), angles.cos()), -1)
