"""T5, an encoder-decoder that takes every task as text to text. Raffel et al. 2019, arXiv:1910.10683.

Version 1.1 has a gated feed-forward network (Shazeer 2020, arXiv:2002.05202) and a head of its own.
Shapes: B batch, S source length, T target length, E hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.models.blocks import Decoder, DecoderLayer, Layer, Stack
from onnxsmith.models.layers import Attention, FeedForward, GatedFeedForward
from onnxsmith.models.parts import CacheShape
from onnxsmith.models.positions import RelativeBias
from onnxsmith.models.seq2seq import Embeddings, EncoderDecoder, TextEncoder


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5, under the names of Hugging Face's ``config.json``; the defaults are t5-small.

    ``gated`` makes the feed-forward network v1.1's. ``tied_head`` makes the embedding table the last product, and
    ``scaled_head`` divides what goes into it by sqrt(E).
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    activation: str = "relu"
    gated: bool = False
    tied_head: bool = True
    scaled_head: bool = True

    @property
    def cache(self) -> CacheShape:
        """What a target's keys and values take."""
        return CacheShape(self.num_decoder_layers or self.num_layers, self.num_heads, self.d_kv)


class T5(EncoderDecoder):
    """Source and target token ids in, one score per token of the vocabulary out."""

    def __init__(self, c: T5Config) -> None:
        decoder_layers = c.num_decoder_layers or c.num_layers
        super().__init__(
            nn.Embedding(c.vocab_size, c.d_model),
            _embeddings(c, both_sides=True),
            _encoder(c),
            _embeddings(c, both_sides=False),
            Decoder((_decoder_layer(c) for _ in range(decoder_layers)), _norm(c)),
        )
        self.config = c
        self.head = None if c.tied_head else nn.Linear(c.d_model, c.vocab_size, bias=False)

    def score(self, hidden: Tensor) -> Tensor:
        """[B, T, E] -> logits [B, T, V]"""
        if self.config.scaled_head:
            hidden = hidden * self.config.d_model**-0.5
        return F.linear(hidden, self.token.weight if self.head is None else self.head.weight)


class T5Encoder(TextEncoder):
    """The encoder alone: token ids in, one vector per token out."""

    def __init__(self, c: T5Config) -> None:
        super().__init__(nn.Embedding(c.vocab_size, c.d_model), _embeddings(c, both_sides=True), _encoder(c))
        self.config = c


def _embeddings(c: T5Config, *, both_sides: bool) -> Embeddings:
    buckets, farthest = c.relative_attention_num_buckets, c.relative_attention_max_distance
    return Embeddings(RelativeBias(c.num_heads, buckets, farthest, both_sides=both_sides))


def _encoder(c: T5Config) -> Stack:
    layers = (Layer(_attention(c), _feed_forward(c), lambda: _norm(c), pre_norm=True) for _ in range(c.num_layers))
    return Stack(layers, _norm(c))


def _decoder_layer(c: T5Config) -> DecoderLayer:
    return DecoderLayer(_attention(c), _attention(c), _feed_forward(c), lambda: _norm(c), pre_norm=True)


def _attention(c: T5Config) -> Attention:
    return Attention(c.d_model, c.num_heads, bias=False, head_size=c.d_kv, scale=1.0)


def _feed_forward(c: T5Config) -> nn.Module:
    kind = GatedFeedForward if c.gated else FeedForward
    return kind(c.d_model, c.d_ff, c.activation, bias=False)


def _norm(c: T5Config) -> nn.RMSNorm:
    return nn.RMSNorm(c.d_model, c.layer_norm_epsilon)
