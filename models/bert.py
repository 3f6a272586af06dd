"""BERT, an encoder with learned positions and post-norm layers. Devlin et al. 2018, arXiv:1810.04805.

Shapes: B batch, S sequence, E hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.models.blocks import Layer
from onnxsmith.models.config import Activation
from onnxsmith.models.layers import Attention, FeedForward, padding_mask
from onnxsmith.models.positions import make_positions, token_positions


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT; the names follow Hugging Face's ``config.json``.

    No ``type_vocab_size`` (0) means no segments. ``positions`` is one of POSITIONS, "learned" as in the paper; then
    ``position_offset`` rows of the table stand for no position.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: Activation = "gelu"
    position_offset: int = 0
    positions: str = "learned"

    @property
    def length(self) -> int:
        """The longest sequence, in tokens."""
        return self.max_position_embeddings - self.position_offset


class BertEmbeddings(nn.Module):
    """Token, position and segment embeddings, summed and normalised."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position = make_positions(
            c.positions,
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            length=c.length,
            offset=c.position_offset,
            both_sides=True,
        )
        self.segment = nn.Embedding(c.type_vocab_size, c.hidden_size) if c.type_vocab_size else None
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, input_ids: Tensor, places: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Three times [B, S] -> [B, S, E]; without segment ids every token is of the first segment."""
        x = self.position.embed(self.token(input_ids), places)
        if self.segment is not None:
            x = x + (self.segment.weight[0] if token_type_ids is None else self.segment(token_type_ids))
        return self.norm(x)  # type: ignore[no-any-return]


def bert_layer(c: BertConfig) -> Layer:
    """A post-norm layer of BERT."""
    return Layer(
        Attention(c.hidden_size, c.num_attention_heads),
        FeedForward(c.hidden_size, c.intermediate_size, c.hidden_act),
        lambda: nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps),
    )


class Bert(nn.Module):
    """The encoder: token ids in, one vector per token out."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.config = c
        self.embeddings = BertEmbeddings(c)
        self.layers = nn.ModuleList(bert_layer(c) for _ in range(c.num_hidden_layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Three times int64 [B, S] -> last hidden state [B, S, E]"""
        places = token_positions(attention_mask)
        position = self.embeddings.position
        x = self.embeddings(input_ids, places, token_type_ids)
        mask = position.bias(padding_mask(attention_mask, x.dtype), places, places)  # [B, H|1, S|1, S]
        rotary = position.tables(places)
        for layer in self.layers:
            x = layer(x, mask, rotary)
        return x  # type: ignore[no-any-return]


class SentenceEmbedder(nn.Module):
    """Mean pooling over the tokens of a sentence. Reimers and Gurevych 2019, arXiv:1908.10084."""

    def __init__(self, encoder: nn.Module, normalize: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.normalize = normalize

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Three times int64 [B, S] -> last hidden state [B, S, E], sentence embedding [B, E]"""
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        weights = attention_mask[:, :, None].to(hidden.dtype)  # [B, S, 1]
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return hidden, F.normalize(pooled, dim=-1) if self.normalize else pooled
