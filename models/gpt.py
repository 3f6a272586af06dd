"""GPT, a decoder with pre-norm layers. Radford et al. 2019 (GPT-2); Brown et al. 2020, arXiv:2005.14165 (GPT-3).

GPT-3 alternates dense and banded sparse attention; its pattern was not published, and here every layer is dense.
Shapes: B batch, S sequence, P tokens before it, H heads, E hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from onnxsmith.models.blocks import Layer
from onnxsmith.models.cache import Cache
from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, FeedForward, causal_mask
from onnxsmith.models.parts import CacheShape
from onnxsmith.models.positions import make_positions, token_positions


@dataclass(frozen=True)
class GptConfig:
    """Sizes of a GPT; ``intermediate_size`` is four times the hidden size unless given.

    ``positions`` is one of POSITIONS: "learned" as in the papers; the other kinds have no limit of their own.
    """

    vocab_size: int = 50257
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 1024
    intermediate_size: int | None = None
    layer_norm_eps: float = 1e-5
    hidden_act: Activation = "gelu_new"
    positions: str = "learned"

    @property
    def cache(self) -> CacheShape:
        """What a text's keys and values take."""
        return CacheShape(
            self.num_hidden_layers, self.num_attention_heads, self.hidden_size // self.num_attention_heads
        )


class Gpt(nn.Module):
    """The decoder: token ids in, one vector per token out, which knows of earlier tokens only."""

    def __init__(self, c: GptConfig) -> None:
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position = make_positions(
            c.positions, hidden=c.hidden_size, heads=c.num_attention_heads, length=c.max_position_embeddings
        )
        self.layers = nn.ModuleList(_layer(c) for _ in range(c.num_hidden_layers))
        self.norm = _norm(c)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, cache: Cache | None = None) -> Tensor:
        """int64 ids [B, S] and mask [B, P + S], P tokens in the cache -> last hidden state [B, S, E]"""
        length = input_ids.shape[1]
        places = token_positions(attention_mask)  # [B, P + S]
        new = places[:, -length:]  # [B, S]
        x = self.position.embed(self.token(input_ids), new)  # [B, S, E]
        mask = causal_mask(attention_mask, length, x.dtype)  # [B, 1, S, P + S]
        mask = self.position.bias(mask, new, places)
        rotary = self.position.tables(new)
        for layer in self.layers:
            x = layer(x, mask, rotary, cache)
        return self.norm(x)  # type: ignore[no-any-return]


def _layer(c: GptConfig) -> Layer:
    attention = Attention(c.hidden_size, c.num_attention_heads)
    feed_forward = FeedForward(c.hidden_size, c.intermediate_size or 4 * c.hidden_size, c.hidden_act)
    return Layer(attention, feed_forward, lambda: _norm(c), pre_norm=True)


def _norm(c: GptConfig) -> nn.LayerNorm:
    return nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
