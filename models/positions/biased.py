"""Positions that are added to the attention scores: ALiBi, and T5's relative bias.

Shapes: B batch, S query length, T key length, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.positions.base import Positions


@dataclass(frozen=True)
class Alibi(Positions):
    """The penalty of ``alibi``, for this many heads."""

    heads: int

    def bias(self, mask: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """[B, 1, S|1, T], [B, S] and [B, T] -> [B, H, S, T]"""
        return mask + alibi(queries, keys, self.heads)


def alibi(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """A penalty on attention that grows with distance: places [B, S] and [B, T] -> float32 [B, H, S, T].

    Press et al. 2021, arXiv:2108.12409, section 3; in an encoder it grows to both sides. Slopes are powers of
    2 ** (-8 / H); where H is no power of two, those of the power below and then every other one of the power above.
    """
    slopes = torch.tensor(alibi_slopes(heads), device=queries.device)[:, None, None]  # [H, 1, 1]
    distance = (keys[:, None, :] - queries[:, :, None]).abs()  # [B, S, T]
    return -slopes * distance[:, None].float()


def alibi_slopes(heads: int) -> list[float]:
    """One slope per head."""
    below = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    return slopes + [2 ** (-4 * (i + 1) / below) for i in range(0, 2 * (heads - below), 2)]


class RelativeBias(Positions, nn.Module):
    """One trained number per head and bucket of distances. Raffel et al. 2019, arXiv:1910.10683, section 2.1.

    Half of the buckets hold one distance each, the others grow with its logarithm up to ``farthest``. In an encoder
    (``both_sides``) half of all buckets are for keys after the query; in a decoder those are in the bucket of 0.
    """

    def __init__(self, heads: int, buckets: int = 32, farthest: int = 128, *, both_sides: bool) -> None:
        super().__init__()
        if buckets < 4 or farthest <= buckets // 2:
            raise BadInput(f"{buckets} buckets do not cover distances up to {farthest}; check the config")
        self.table = nn.Embedding(buckets, heads)
        self.farthest = farthest
        self.both_sides = both_sides

    def bias(self, mask: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """[B, 1, S|1, T], [B, S] and [B, T] -> [B, H, S, T]"""
        ahead = keys[:, None, :] - queries[:, :, None]  # [B, S, T]: how far the key is after the query
        return mask + self.table(self.buckets(ahead)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]

    def buckets(self, ahead: Tensor) -> Tensor:
        """Signed distances from query to key -> bucket numbers of the same shape, both int64"""
        count = self.table.num_embeddings
        if not self.both_sides:
            return _bucket(-ahead.clamp(max=0), count, self.farthest)
        return (ahead > 0) * (count // 2) + _bucket(ahead.abs(), count // 2, self.farthest)


def _bucket(distance: Tensor, count: int, farthest: int) -> Tensor:
    exact = count // 2
    share = torch.log(distance.clamp(min=exact).float() / exact) / math.log(farthest / exact)
    far = exact + (share * (count - exact)).to(torch.int64)
    return torch.where(distance < exact, distance, far.clamp(max=count - 1))
