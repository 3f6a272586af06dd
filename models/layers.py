"""Parts that every architecture shares: attention over heads and the feed-forward network.

Shapes: B batch, S query length, T key length, H heads, D head size, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.errors import BadInput

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation that a config names. Raises BadInput when there is none of that name."""
    if name not in ACTIVATIONS:
        raise BadInput(f"no activation {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def padding_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T] of 1 at tokens and 0 at padding -> additive [B, 1, 1, T] of 0 and the type's lowest number."""
    blocked = 1.0 - attention_mask[:, None, None, :].to(dtype)
    return blocked * torch.finfo(dtype).min


class Attention(nn.Module):
    """Multi-head scaled dot-product attention, Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.

    Self-attention when no ``memory`` is given, cross-attention over it otherwise.
    """

    def __init__(self, hidden: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        if hidden % heads:
            raise BadInput(f"hidden size {hidden} does not divide into {heads} heads; check the config")
        self.heads = heads
        self.query = nn.Linear(hidden, hidden, bias=bias)
        self.key = nn.Linear(hidden, hidden, bias=bias)
        self.value = nn.Linear(hidden, hidden, bias=bias)
        self.output = nn.Linear(hidden, hidden, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """x [B, S, E], mask additive [B|1, H|1, S|1, T], memory [B, T, E] -> [B, S, E]"""
        source = x if memory is None else memory
        q = self._split(self.query(x))  # [B, H, S, D]
        k = self._split(self.key(source))  # [B, H, T, D]
        v = self._split(self.value(source))  # [B, H, T, D]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # [B, H, S, D]
        merged = mixed.transpose(1, 2).flatten(2)  # [B, S, E]
        return self.output(merged)  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)  # [B, S, E] -> [B, H, S, D]


class FeedForward(nn.Module):
    """Two products with an activation between them, applied to each position alone."""

    def __init__(self, hidden: int, inner: int, act: str, bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(hidden, inner, bias=bias)
        self.down = nn.Linear(inner, hidden, bias=bias)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, S, E] -> [B, S, E]"""
        return self.down(self.act(self.up(x)))  # type: ignore[no-any-return]
