"""The Transformer, an encoder-decoder for translation. Vaswani et al. 2017, arXiv:1706.03762.

Shapes: B batch, S source length, T target length, E hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.models.blocks import Decoder, DecoderLayer, Layer, Stack
from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, FeedForward
from onnxsmith.models.parts import CacheShape
from onnxsmith.models.positions import make_positions
from onnxsmith.models.seq2seq import Embeddings, EncoderDecoder


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a Transformer, under the paper's names; the defaults are its base model with its English-German
    vocabulary. ``pre_norm`` puts the norms in front of each part, and one more at the end of both stacks.
    ``positions`` is one of POSITIONS, "sinusoidal" as in the paper; learned ones are for ``length`` tokens.
    """

    vocab_size: int = 37000
    d_model: int = 512
    layers: int = 6
    heads: int = 8
    d_ff: int = 2048
    activation: Activation = "relu"
    layer_norm_eps: float = 1e-5
    pre_norm: bool = False
    positions: str = "sinusoidal"
    length: int = 1024

    @property
    def cache(self) -> CacheShape:
        """What a text's keys and values take."""
        return CacheShape(self.layers, self.heads, self.d_model // self.heads)


class Transformer(EncoderDecoder):
    """Source and target token ids in, one score per token of the vocabulary out.

    One table embeds both sides, times sqrt(E), and is the last product (section 3.4).
    """

    def __init__(self, c: TransformerConfig) -> None:
        token = nn.Embedding(c.vocab_size, c.d_model)
        nn.init.normal_(token.weight, std=c.d_model**-0.5)
        super().__init__(
            token,
            _embeddings(c, both_sides=True),
            Stack((_encoder_layer(c) for _ in range(c.layers)), _last_norm(c)),
            _embeddings(c, both_sides=False),
            Decoder((_decoder_layer(c) for _ in range(c.layers)), _last_norm(c)),
            scale=math.sqrt(c.d_model),
        )
        self.config = c

    def score(self, hidden: Tensor) -> Tensor:
        """[B, T, E] -> logits [B, T, V]"""
        return F.linear(hidden, self.token.weight)


def _embeddings(c: TransformerConfig, *, both_sides: bool) -> Embeddings:
    return Embeddings(
        make_positions(c.positions, hidden=c.d_model, heads=c.heads, length=c.length, both_sides=both_sides)
    )


def _encoder_layer(c: TransformerConfig) -> Layer:
    return Layer(_attention(c), _feed_forward(c), lambda: _norm(c), pre_norm=c.pre_norm)


def _decoder_layer(c: TransformerConfig) -> DecoderLayer:
    return DecoderLayer(_attention(c), _attention(c), _feed_forward(c), lambda: _norm(c), pre_norm=c.pre_norm)


def _attention(c: TransformerConfig) -> Attention:
    return Attention(c.d_model, c.heads)


def _feed_forward(c: TransformerConfig) -> FeedForward:
    return FeedForward(c.d_model, c.d_ff, c.activation)


def _norm(c: TransformerConfig) -> nn.LayerNorm:
    return nn.LayerNorm(c.d_model, eps=c.layer_norm_eps)


def _last_norm(c: TransformerConfig) -> nn.LayerNorm | None:
    return _norm(c) if c.pre_norm else None
