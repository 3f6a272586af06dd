"""Llama and its kin: RMS norm, rotary positions, grouped-query attention and a gated feed-forward network.

Touvron et al. 2023, arXiv:2307.09288 (Llama 2); Llama Team 2024, arXiv:2407.21783 (Llama 3). By config it is Mistral
(a window; Jiang et al. 2023, arXiv:2310.06825), Qwen2 (query, key and value biases; arXiv:2407.10671) and SmolLM2
(arXiv:2502.02737). Shapes: B batch, S sequence, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, GatedFeedForward, causal_mask
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


class LlamaLayer(nn.Module):
    """Attention and feed-forward, each on normalised input and added to it (pre-norm)."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.attention = Attention(
            c.hidden_size,
            c.num_attention_heads,
            c.qkv_bias,
            kv_heads=c.num_key_value_heads,
            head_size=c.head_dim,
            output_bias=c.output_bias,
        )
        self.feed_forward_norm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.feed_forward = GatedFeedForward(c.hidden_size, c.intermediate_size, c.hidden_act, c.mlp_bias)

    def forward(self, x: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """x [B, S, E], mask [B, 1, S, S] -> [B, S, E]"""
        x = x + self.attention(self.attention_norm(x), mask, rotary=rotary)
        return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]


class Llama(nn.Module):
    """The decoder: token ids in, one vector per token out, which knows of earlier tokens only."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.rotary = Rotary(c.head_size, c.rope_theta, c.max_position_embeddings, c.rope_scaling)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> last hidden state [B, S, E]"""
        x = self.token(input_ids)  # [B, S, E]
        mask = causal_mask(attention_mask, x.dtype, self.config.window)  # [B, 1, S, S]
        rotary = self.rotary.tables(token_positions(attention_mask))
        for layer in self.layers:
            x = layer(x, mask, rotary)
        return self.norm(x)  # type: ignore[no-any-return]


class LlamaLM(nn.Module):
    """Scores the next token; a tied head is the embedding table."""

    def __init__(self, decoder: Llama) -> None:
        super().__init__()
        c = decoder.config
        self.decoder = decoder
        self.head = None if c.tie_word_embeddings else nn.Linear(c.hidden_size, c.vocab_size, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> logits [B, S, V]"""
        weight = self.decoder.token.weight if self.head is None else self.head.weight
        return F.linear(self.decoder(input_ids, attention_mask), weight)
