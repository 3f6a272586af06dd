"""Llama and its kin: RMS norm, rotary positions, grouped-query attention and a gated feed-forward network.

Touvron et al. 2023, arXiv:2307.09288 (Llama 2); Llama Team 2024, arXiv:2407.21783 (Llama 3). By config it is Mistral
(a window; Jiang et al. 2023, arXiv:2310.06825), Qwen2 (query, key and value biases; arXiv:2407.10671) and SmolLM2
(arXiv:2502.02737). Shapes: B batch, S sequence, P tokens before it, E hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from onnxsmith.models.blocks import Layer
from onnxsmith.models.cache import Cache
from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, GatedFeedForward, causal_mask
from onnxsmith.models.parts import CacheShape
from onnxsmith.models.positions import Rotary, token_positions


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama; the names follow Hugging Face's ``config.json``.

    ``qkv_bias`` and ``output_bias`` are the attention's, ``window`` is how many tokens a token sees (None: all),
    ``rope_scaling`` is as ``Rotary`` takes it.
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 4096
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    rms_norm_eps: float = 1e-5
    hidden_act: Activation = "silu"
    tie_word_embeddings: bool = False
    mlp_bias: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    window: int | None = None
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def head_size(self) -> int:
        """Features of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def cache(self) -> CacheShape:
        """What a text's keys and values take."""
        return CacheShape(self.num_hidden_layers, self.num_key_value_heads or self.num_attention_heads, self.head_size)


class Llama(nn.Module):
    """The decoder: token ids in, one vector per token out, which knows of earlier tokens only."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(_layer(c) for _ in range(c.num_hidden_layers))
        self.norm = _norm(c)
        self.rotary = Rotary(c.head_size, c.rope_theta, c.max_position_embeddings, c.rope_scaling)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, cache: Cache | None = None) -> Tensor:
        """int64 ids [B, S] and mask [B, P + S], P tokens in the cache -> last hidden state [B, S, E]"""
        length = input_ids.shape[1]
        x = self.token(input_ids)  # [B, S, E]
        mask = causal_mask(attention_mask, length, x.dtype, self.config.window)  # [B, 1, S, P + S]
        places = token_positions(attention_mask)  # [B, P + S]
        rotary = self.rotary.tables(places[:, -length:])
        for layer in self.layers:
            x = layer(x, mask, rotary, cache)
        return self.norm(x)  # type: ignore[no-any-return]


def _layer(c: LlamaConfig) -> Layer:
    attention = Attention(
        c.hidden_size,
        c.num_attention_heads,
        c.qkv_bias,
        kv_heads=c.num_key_value_heads,
        head_size=c.head_dim,
        output_bias=c.output_bias,
    )
    feed_forward = GatedFeedForward(c.hidden_size, c.intermediate_size, c.hidden_act, c.mlp_bias)
    return Layer(attention, feed_forward, lambda: _norm(c), pre_norm=True)


def _norm(c: LlamaConfig) -> nn.RMSNorm:
    return nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
