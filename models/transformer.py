"""The Transformer, an encoder-decoder for translation. Vaswani et al. 2017, arXiv:1706.03762.

Shapes: B batch, S source length, T target length, E hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.models.blocks import DecoderLayer, EncoderLayer, Stack
from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, FeedForward, causal_mask, padding_mask
from onnxsmith.models.positions import sinusoidal, token_positions


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a Transformer, under the paper's names; the defaults are its base model with its English-German
    vocabulary. ``pre_norm`` puts the norms in front of each part, and one more at the end of both stacks.
    """

    vocab_size: int = 37000
    d_model: int = 512
    layers: int = 6
    heads: int = 8
    d_ff: int = 2048
    activation: Activation = "relu"
    layer_norm_eps: float = 1e-5
    pre_norm: bool = False


class Transformer(nn.Module):
    """Source and target token ids in, one score per token of the vocabulary out.

    One table embeds both sides, times sqrt(E), and is the last product (section 3.4).
    """

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.d_model)
        nn.init.normal_(self.token.weight, std=c.d_model**-0.5)
        self.encoder = Stack((self._encoder_layer() for _ in range(c.layers)), self._last_norm())
        self.decoder = Stack((self._decoder_layer() for _ in range(c.layers)), self._last_norm())

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor
    ) -> Tensor:
        """int64 ids and masks, two [B, S] and two [B, T] -> logits [B, T, V]"""
        memory = self.encode(input_ids, attention_mask)
        x = self.decode(decoder_input_ids, decoder_attention_mask, memory, attention_mask)
        return F.linear(x, self.token.weight)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times [B, S] -> [B, S, E]"""
        x = self._embed(input_ids, attention_mask)
        return self.encoder(x, padding_mask(attention_mask, x.dtype))  # type: ignore[no-any-return]

    def decode(self, ids: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """ids and mask [B, T], what ``encode`` gave [B, S, E] and its mask [B, S] -> [B, T, E]"""
        x = self._embed(ids, mask)
        return self.decoder(x, causal_mask(mask, x.dtype), memory, padding_mask(memory_mask, x.dtype))  # type: ignore[no-any-return]

    def _embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        width = self.config.d_model
        return self.token(ids) * math.sqrt(width) + sinusoidal(token_positions(mask), width)  # type: ignore[no-any-return]

    def _encoder_layer(self) -> EncoderLayer:
        c = self.config
        return EncoderLayer(self._attention(), self._feed_forward(), self._norm, pre_norm=c.pre_norm)

    def _decoder_layer(self) -> DecoderLayer:
        parts = (self._attention(), self._attention(), self._feed_forward())
        return DecoderLayer(*parts, self._norm, pre_norm=self.config.pre_norm)

    def _attention(self) -> Attention:
        return Attention(self.config.d_model, self.config.heads)

    def _feed_forward(self) -> FeedForward:
        c = self.config
        return FeedForward(c.d_model, c.d_ff, c.activation)

    def _norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.d_model, eps=self.config.layer_norm_eps)

    def _last_norm(self) -> nn.LayerNorm | None:
        return self._norm() if self.config.pre_norm else None
