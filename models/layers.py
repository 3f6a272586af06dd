"""Parts that every architecture shares: attention over heads, its masks and the feed-forward network.

Shapes: B batch, S query length, T key length, H heads, D head size, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.cache import Cache, KeysValues
from onnxsmith.models.positions import rotate, token_positions

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "swish": F.silu,
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


def causal_mask(attention_mask: Tensor, queries: int, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """Hides padding, later tokens, and those ``window`` or more before: [B, T] of 1 and 0 -> additive [B, 1, S, T].

    The S ``queries`` are the last of the T places.
    """
    steps = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    seen = (steps[None, :] <= steps[-queries:, None]).to(dtype)  # [S, T]
    if window is not None:
        places = token_positions(attention_mask)  # not steps: padding may stand between a prompt and what follows it
        behind = places[:, -queries:, None] - places[:, None, :]  # [B, S, T]
        seen = seen * (behind < window)[:, None].to(dtype)  # [B, 1, S, T]
    # One product of all conditions, not a sum of masks: that would be -inf where two forbid.
    return (1.0 - seen * attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


class Attention(nn.Module):
    """Multi-head scaled dot-product attention, Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.

    Self-attention when no ``memory`` is given, cross-attention over it otherwise. With fewer ``kv_heads`` than heads,
    groups of heads share keys and values: Ainslie et al. 2023, arXiv:2305.13245. ``scale`` is what scores are
    multiplied by, 1 / sqrt(D) when none is given.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        bias: bool = True,
        *,
        kv_heads: int | None = None,
        head_size: int | None = None,
        output_bias: bool | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if head_size is None and hidden % heads:
            raise BadInput(f"hidden size {hidden} does not divide into {heads} heads; check the config")
        kv_heads = kv_heads or heads
        if heads % kv_heads:
            raise BadInput(f"{heads} heads do not divide into {kv_heads} groups of keys and values; check the config")
        size = head_size or hidden // heads
        self.heads, self.kv_heads = heads, kv_heads
        self.scale = scale
        self.query = nn.Linear(hidden, heads * size, bias=bias)
        self.key = nn.Linear(hidden, kv_heads * size, bias=bias)
        self.value = nn.Linear(hidden, kv_heads * size, bias=bias)
        self.output = nn.Linear(heads * size, hidden, bias=bias if output_bias is None else output_bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        *,
        memory: KeysValues | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x [B, S, E], mask additive [B|1, H|1, S|1, T], tables of ``Rotary`` -> [B, S, E]

        ``memory`` is what ``keys_values`` makes of another text, ``cache`` has the tokens before ``x``.
        """
        q = self._split(self.query(x), self.heads)  # [B, H, S, D]
        q = q if rotary is None else rotate(q, rotary)
        k, v = self.keys_values(x, rotary) if memory is None else memory  # [B, KV, T, D]
        if cache is not None:
            k, v = cache.extend(k, v)
        k, v = self._share(k), self._share(v)  # [B, H, T, D]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)  # [B, H, S, D]
        merged = mixed.transpose(1, 2).flatten(2)  # [B, S, H*D]
        return self.output(merged)  # type: ignore[no-any-return]

    def keys_values(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> KeysValues:
        """[B, T, E] -> keys and values [B, KV, T, D]"""
        k = self._split(self.key(x), self.kv_heads)
        v = self._split(self.value(x), self.kv_heads)
        return (k if rotary is None else rotate(k, rotary)), v

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)  # [B, S, H*D] -> [B, H, S, D]

    def _share(self, x: Tensor) -> Tensor:
        groups = self.heads // self.kv_heads
        if groups == 1:
            return x
        return x[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2)  # [B, KV, T, D] -> [B, H, T, D]


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


class GatedFeedForward(nn.Module):
    """A feed-forward network whose activation gates a second product. Shazeer 2020, arXiv:2002.05202."""

    def __init__(self, hidden: int, inner: int, act: str, bias: bool = False) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, inner, bias=bias)
        self.up = nn.Linear(hidden, inner, bias=bias)
        self.down = nn.Linear(inner, hidden, bias=bias)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, S, E] -> [B, S, E]"""
        return self.down(self.act(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]
