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

from onnxsmith.models.blocks import Decoder, DecoderLayer, Layer, Stack
from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, FeedForward
from onnxsmith.models.parts import CacheShape
from onnxsmith.models.positions import make_positions, token_positions
from onnxsmith.models.seq2seq import Embeddings, EncoderDecoder


@dataclass(frozen=True)
class BartConfig:
    """Sizes of a BART, under the names of Hugging Face's ``config.json``; the defaults are bart-base.

    ``positions`` is one of POSITIONS; learned ones start after two rows that stand for none. Marian has no
    ``embedding_norm``, and lays out its "sinusoidal" positions with the sines first, not ``interleaved``.
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
    positions: str = "learned"
    interleaved: bool = True
    embedding_norm: bool = True

    @property
    def cache(self) -> CacheShape:
        """What a target's keys and values take."""
        heads = self.decoder_attention_heads
        return CacheShape(self.decoder_layers, heads, self.d_model // heads)


class Bart(EncoderDecoder):
    """Source and target token ids in, the decoder's last hidden state out."""

    def __init__(self, c: BartConfig) -> None:
        super().__init__(
            nn.Embedding(c.vocab_size, c.d_model),
            _embeddings(c, c.encoder_attention_heads, both_sides=True),
            Stack(_encoder_layer(c) for _ in range(c.encoder_layers)),
            _embeddings(c, c.decoder_attention_heads, both_sides=False),
            Decoder(_decoder_layer(c) for _ in range(c.decoder_layers)),
            scale=math.sqrt(c.d_model) if c.scale_embedding else 1.0,
        )
        self.config = c


class BartGenerator(Bart):
    """Scores the next token, with the embedding table as the last product and a bias that is not trained."""

    def __init__(self, c: BartConfig, *, bias: bool = True) -> None:
        super().__init__(c)
        self.bias: Tensor | None
        self.register_buffer("bias", torch.zeros(1, c.vocab_size) if bias else None)

    def score(self, hidden: Tensor) -> Tensor:
        """[B, T, E] -> logits [B, T, V]"""
        logits = F.linear(hidden, self.token.weight)
        return logits if self.bias is None else logits + self.bias


class _Reader(nn.Module):
    """A BART whose decoder reads the same text as its encoder, one token behind it (section 3.1).

    ``start`` is the token that the decoder begins with.
    """

    def __init__(self, c: BartConfig, start: int) -> None:
        super().__init__()
        self.model = Bart(c)
        self.start = start

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> the decoder's last hidden state [B, S, E]"""
        shifted = torch.where(token_positions(attention_mask) == 0, self.start, input_ids.roll(1, 1))  # [B, S]
        return self.model(input_ids, attention_mask, shifted, attention_mask)  # type: ignore[no-any-return]


class BartClassifier(_Reader):
    """Labels a text by the decoder's state at its last ``end`` token, which has seen all of it (section 3.1)."""

    def __init__(self, c: BartConfig, labels: int, *, start: int = 2, end: int = 2) -> None:
        super().__init__(c, start)
        self.end = end
        self.dense = nn.Linear(c.d_model, c.d_model)
        self.output = nn.Linear(c.d_model, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> logits [B, L]"""
        hidden = self.hidden(input_ids, attention_mask)  # [B, S, E]
        ends = (input_ids == self.end).to(torch.int64) * attention_mask
        last = (ends * torch.arange(1, ends.shape[1] + 1, device=ends.device)).argmax(1)  # [B]
        x = hidden[torch.arange(len(last), device=last.device), last]  # [B, E]
        return self.output(torch.tanh(self.dense(x)))  # type: ignore[no-any-return]


class BartSpanAnswer(_Reader):
    """Scores each token as the start and as the end of the answer, as in SQuAD (section 3.2)."""

    def __init__(self, c: BartConfig, *, start: int = 2) -> None:
        super().__init__(c, start)
        self.output = nn.Linear(c.d_model, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Two times int64 [B, S] -> logits of the start [B, S] and of the end [B, S]"""
        x = self.output(self.hidden(input_ids, attention_mask))  # [B, S, 2]
        return x[:, :, 0], x[:, :, 1]


def _embeddings(c: BartConfig, heads: int, *, both_sides: bool) -> Embeddings:
    position = make_positions(
        c.positions,
        hidden=c.d_model,
        heads=heads,
        length=c.max_position_embeddings,
        offset=2,
        interleaved=c.interleaved,
        both_sides=both_sides,
    )
    return Embeddings(position, nn.LayerNorm(c.d_model) if c.embedding_norm else None)


def _encoder_layer(c: BartConfig) -> Layer:
    feed_forward = FeedForward(c.d_model, c.encoder_ffn_dim, c.activation_function)
    return Layer(Attention(c.d_model, c.encoder_attention_heads), feed_forward, lambda: nn.LayerNorm(c.d_model))


def _decoder_layer(c: BartConfig) -> DecoderLayer:
    attention, cross = (Attention(c.d_model, c.decoder_attention_heads) for _ in range(2))
    feed_forward = FeedForward(c.d_model, c.decoder_ffn_dim, c.activation_function)
    return DecoderLayer(attention, cross, feed_forward, lambda: nn.LayerNorm(c.d_model))
