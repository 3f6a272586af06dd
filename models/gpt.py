"""GPT, a decoder with pre-norm layers. Radford et al. 2019 (GPT-2); Brown et al. 2020, arXiv:2005.14165 (GPT-3).

GPT-3 alternates dense and banded sparse attention; its pattern was not published, and here every layer is dense.
Shapes: B batch, S sequence, H heads, E hidden size, V vocabulary, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, FeedForward, causal_mask
from onnxsmith.models.positions import LearnedPositions, Rotary, alibi, sinusoidal, token_positions

POSITIONS = ("learned", "sinusoidal", "rotary", "alibi")


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

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS:
            raise BadInput(f"no positions {self.positions!r}; choose one of {', '.join(POSITIONS)}")


class GptLayer(nn.Module):
    """Attention and feed-forward, each on normalised input and added to it (pre-norm)."""

    def __init__(self, c: GptConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.attention = Attention(c.hidden_size, c.num_attention_heads)
        self.feed_forward_norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.feed_forward = FeedForward(c.hidden_size, c.intermediate_size or 4 * c.hidden_size, c.hidden_act)

    def forward(self, x: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """x [B, S, E], mask [B, 1|H, S, S] -> [B, S, E]"""
        x = x + self.attention(self.attention_norm(x), mask, rotary=rotary)
        return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """The decoder: token ids in, one vector per token out, which knows of earlier tokens only."""

    def __init__(self, c: GptConfig) -> None:
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        learned = c.positions == "learned"
        self.position = LearnedPositions(c.max_position_embeddings, c.hidden_size) if learned else None
        self.layers = nn.ModuleList(GptLayer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        head_size = c.hidden_size // c.num_attention_heads
        self.rotary = Rotary(head_size, 10000, c.max_position_embeddings, {}) if c.positions == "rotary" else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> last hidden state [B, S, E]"""
        positions = token_positions(attention_mask)  # [B, S]
        x = self.token(input_ids)  # [B, S, E]
        if self.position is not None:
            x = x + self.position(positions)
        elif self.config.positions == "sinusoidal":
            x = x + sinusoidal(positions, self.config.hidden_size)
        mask = causal_mask(attention_mask, x.dtype)  # [B, 1, S, S]
        if self.config.positions == "alibi":
            mask = mask + alibi(positions, self.config.num_attention_heads)  # [B, H, S, S]
        rotary = self.rotary.tables(positions) if self.rotary is not None else None
        for layer in self.layers:
            x = layer(x, mask, rotary)
        return self.norm(x)  # type: ignore[no-any-return]


class GptLM(nn.Module):
    """Scores the next token, with the embedding table as the last product."""

    def __init__(self, decoder: Gpt) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> logits [B, S, V]"""
        return F.linear(self.decoder(input_ids, attention_mask), self.decoder.token.weight)
