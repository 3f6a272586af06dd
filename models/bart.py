"""BART, an encoder-decoder that is trained to repair text. Lewis et al. 2019, arXiv:1910.13461.

Marian is the same with sinusoidal positions, scaled embeddings and no norm on them. Junczys-Dowmunt et al. 2018,
arXiv:1804.00344. Shapes: B batch, S source length, T target length, E hidden size, V vocabulary, L labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.models.blocks import DecoderLayer, EncoderLayer, Stack
from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, FeedForward, causal_mask, padding_mask
from onnxsmith.models.positions import LearnedPositions, sinusoidal, token_positions


@dataclass(frozen=True)
class BartConfig:
    """Sizes of a BART, under the names of Hugging Face's ``config.json``; the defaults are bart-base.

    ``learned_positions`` and ``embedding_norm`` are what Marian does without.
    """

    vocab_size: int = 50265
    d_model: int = 768
    encoder_layers: int = 6
    encoder_attention_heads: int = 12
    encoder_ffn_dim: int = 3072
    decoder_layers: int = 6
    decoder_attention_heads: int = 12
    decoder_ffn_dim: int = 3072
    max_position_embeddings: int = 1024
    activation_function: Activation = "gelu"
    scale_embedding: bool = False
    learned_positions: bool = True
    embedding_norm: bool = True


class BartEmbeddings(nn.Module):
    """What is added to the token embeddings of one side, and the norm after it. The tokens' table is shared."""

    def __init__(self, c: BartConfig) -> None:
        super().__init__()
        self.width = c.d_model
        self.scale = math.sqrt(c.d_model) if c.scale_embedding else 1.0
        learned, size = c.learned_positions, c.max_position_embeddings
        self.position = LearnedPositions(size + 2, c.d_model, offset=2) if learned else None
        self.norm = nn.LayerNorm(c.d_model) if c.embedding_norm else None

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """tokens [B, S, E], attention_mask [B, S] -> [B, S, E]"""
        places = token_positions(attention_mask)
        position = sinusoidal(places, self.width, interleaved=False) if self.position is None else self.position(places)
        x = tokens * self.scale + position
        return x if self.norm is None else self.norm(x)


class Bart(nn.Module):
    """Source and target token ids in, the decoder's last hidden state out."""

    def __init__(self, c: BartConfig) -> None:
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.d_model)
        self.encoder_embeddings = BartEmbeddings(c)
        self.encoder = Stack(_encoder_layer(c) for _ in range(c.encoder_layers))
        self.decoder_embeddings = BartEmbeddings(c)
        self.decoder = Stack(_decoder_layer(c) for _ in range(c.decoder_layers))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor
    ) -> Tensor:
        """int64 ids and masks, two [B, S] and two [B, T] -> [B, T, E]"""
        x = self.encoder_embeddings(self.token(input_ids), attention_mask)
        memory_mask = padding_mask(attention_mask, x.dtype)
        memory = self.encoder(x, memory_mask)
        y = self.decoder_embeddings(self.token(decoder_input_ids), decoder_attention_mask)
        return self.decoder(y, causal_mask(decoder_attention_mask, y.dtype), memory, memory_mask)  # type: ignore[no-any-return]


class BartGenerator(nn.Module):
    """Scores the next token, with the embedding table as the last product and a bias that is not trained."""

    def __init__(self, c: BartConfig, *, bias: bool = True) -> None:
        super().__init__()
        self.model = Bart(c)
        self.bias: Tensor | None
        self.register_buffer("bias", torch.zeros(1, c.vocab_size) if bias else None)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor
    ) -> Tensor:
        """int64 ids and masks, two [B, S] and two [B, T] -> logits [B, T, V]"""
        x = self.model(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask)
        logits = F.linear(x, self.model.token.weight)
        return logits if self.bias is None else logits + self.bias


class BartClassifier(nn.Module):
    """Labels a text by the decoder's state at its last end token, when the decoder reads the text too (section 3.1).

    ``start`` is the token that the decoder begins with, ``end`` the one that ends a text.
    """

    def __init__(self, c: BartConfig, labels: int, *, start: int = 2, end: int = 2) -> None:
        super().__init__()
        self.model = Bart(c)
        self.start, self.end = start, end
        self.dense = nn.Linear(c.d_model, c.d_model)
        self.output = nn.Linear(c.d_model, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> logits [B, L]"""
        before = input_ids.roll(1, 1)
        shifted = torch.where(token_positions(attention_mask) == 0, self.start, before)  # [B, S]
        hidden = self.model(input_ids, attention_mask, shifted, attention_mask)  # [B, S, E]
        ends = (input_ids == self.end).to(torch.int64) * attention_mask
        last = (ends * torch.arange(1, ends.shape[1] + 1, device=ends.device)).argmax(1)  # [B]
        x = hidden[torch.arange(len(last), device=last.device), last]  # [B, E]
        return self.output(torch.tanh(self.dense(x)))  # type: ignore[no-any-return]


def _encoder_layer(c: BartConfig) -> EncoderLayer:
    feed_forward = FeedForward(c.d_model, c.encoder_ffn_dim, c.activation_function)
    return EncoderLayer(Attention(c.d_model, c.encoder_attention_heads), feed_forward, lambda: nn.LayerNorm(c.d_model))


def _decoder_layer(c: BartConfig) -> DecoderLayer:
    attention, cross = (Attention(c.d_model, c.decoder_attention_heads) for _ in range(2))
    feed_forward = FeedForward(c.d_model, c.decoder_ffn_dim, c.activation_function)
    return DecoderLayer(attention, cross, feed_forward, lambda: nn.LayerNorm(c.d_model))
