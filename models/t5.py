"""T5, an encoder-decoder that takes every task as text to text. Raffel et al. 2019, arXiv:1910.10683.

Version 1.1 has a gated feed-forward network (Shazeer 2020, arXiv:2002.05202) and a head of its own.
Shapes: B batch, S source length, T target length, H heads, E hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.blocks import DecoderLayer, EncoderLayer, Stack
from onnxsmith.models.layers import Attention, FeedForward, GatedFeedForward, causal_mask, padding_mask


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


class RelativeBias(nn.Module):
    """One trained number per head and bucket of distances, added to the scores of every layer (section 2.1).

    Half of the buckets hold one distance each, the others grow with its logarithm up to ``farthest``. In an encoder
    (``both_sides``) half of all buckets are for keys after the query; in a decoder those are in the bucket of 0.
    """

    def __init__(self, heads: int, buckets: int, farthest: int, *, both_sides: bool) -> None:
        super().__init__()
        if buckets < 4 or farthest <= buckets // 2:
            raise BadInput(f"{buckets} buckets do not cover distances up to {farthest}; check the config")
        self.table = nn.Embedding(buckets, heads)
        self.farthest = farthest
        self.both_sides = both_sides

    def forward(self, length: int) -> Tensor:
        """-> [1, H, length, length]"""
        places = torch.arange(length, device=self.table.weight.device)
        ahead = places[None, :] - places[:, None]  # [S, T]: how far the key is after the query
        return self.table(self.buckets(ahead)).permute(2, 0, 1)[None]  # type: ignore[no-any-return]

    def buckets(self, ahead: Tensor) -> Tensor:
        """Signed distances from query to key -> bucket numbers of the same shape, both int64"""
        count = self.table.num_embeddings
        if not self.both_sides:
            return _bucket(-ahead.clamp(max=0), count, self.farthest)
        return (ahead > 0) * (count // 2) + _bucket(ahead.abs(), count // 2, self.farthest)


def _bucket(distance: Tensor, count: int, farthest: int) -> Tensor:
    exact = count // 2
    share = torch.log(distance.clamp(min=exact).float() / exact) / math.log(farthest / exact)
    far = exact + (share * (count - exact)).to(torch.int64)
    return torch.where(distance < exact, distance, far.clamp(max=count - 1))


class T5(nn.Module):
    """Source and target token ids in, one score per token of the vocabulary out."""

    def __init__(self, c: T5Config) -> None:
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.d_model)
        self.encoder_bias = _relative_bias(c, both_sides=True)
        self.encoder = Stack((_encoder_layer(c) for _ in range(c.num_layers)), _norm(c))
        self.decoder_bias = _relative_bias(c, both_sides=False)
        decoder_layers = c.num_decoder_layers or c.num_layers
        self.decoder = Stack((_decoder_layer(c) for _ in range(decoder_layers)), _norm(c))
        self.head = None if c.tied_head else nn.Linear(c.d_model, c.vocab_size, bias=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor
    ) -> Tensor:
        """int64 ids and masks, two [B, S] and two [B, T] -> logits [B, T, V]"""
        memory = self.encode(input_ids, attention_mask)
        x = self.decode(decoder_input_ids, decoder_attention_mask, memory, attention_mask)
        if self.config.scaled_head:
            x = x * self.config.d_model**-0.5
        return F.linear(x, self.token.weight if self.head is None else self.head.weight)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times [B, S] -> [B, S, E]"""
        x = self.token(input_ids)
        mask = padding_mask(attention_mask, x.dtype) + self.encoder_bias(x.shape[1])  # [B, H, S, S]
        return self.encoder(x, mask)  # type: ignore[no-any-return]

    def decode(self, ids: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """ids and mask [B, T], what ``encode`` gave [B, S, E] and its mask [B, S] -> [B, T, E]"""
        x = self.token(ids)
        own = causal_mask(mask, x.dtype) + self.decoder_bias(x.shape[1])  # [B, H, T, T]
        return self.decoder(x, own, memory, padding_mask(memory_mask, x.dtype))  # type: ignore[no-any-return]


def _relative_bias(c: T5Config, *, both_sides: bool) -> RelativeBias:
    buckets, farthest = c.relative_attention_num_buckets, c.relative_attention_max_distance
    return RelativeBias(c.num_heads, buckets, farthest, both_sides=both_sides)


def _encoder_layer(c: T5Config) -> EncoderLayer:
    return EncoderLayer(_attention(c), _feed_forward(c), lambda: _norm(c), pre_norm=True)


def _decoder_layer(c: T5Config) -> DecoderLayer:
    return DecoderLayer(_attention(c), _attention(c), _feed_forward(c), lambda: _norm(c), pre_norm=True)


def _attention(c: T5Config) -> Attention:
    return Attention(c.d_model, c.num_heads, bias=False, head_size=c.d_kv, scale=1.0)


def _feed_forward(c: T5Config) -> nn.Module:
    kind = GatedFeedForward if c.gated else FeedForward
    return kind(c.d_model, c.d_ff, c.activation, bias=False)


def _norm(c: T5Config) -> nn.RMSNorm:
    return nn.RMSNorm(c.d_model, c.layer_norm_epsilon)
