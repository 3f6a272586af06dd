"""Keys and values of earlier tokens, so that a new token costs one step and not a whole text.

Shapes: B batch, H heads of keys and values, P earlier tokens, S new ones, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]


def paired(tensors: Sequence[Tensor]) -> list[KeysValues]:
    """Keys and values of each layer, which come one after the other, in pairs."""
    return list(pairwise(tensors))[::2]


class Cache:
    """Handed through the layers, each of which takes its own part of the past and leaves its part of the present."""

    def __init__(self, past: Sequence[Tensor]) -> None:
        """``past`` holds keys and values [B, H, P, D] of each layer in turn; P may be 0."""
        self._past = iter(paired(past))
        self.present: list[Tensor] = []

    def extend(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Of the new tokens, [B, H, S, D] each -> of all, [B, H, P + S, D] each"""
        past_keys, past_values = next(self._past)
        present = torch.cat((past_keys, keys), 2), torch.cat((past_values, values), 2)
        self.present += present
        return present
