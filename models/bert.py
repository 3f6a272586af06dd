"""BERT, an encoder with learned positions and post-norm layers. Devlin et al. 2018, arXiv:1810.04805.

Shapes: B batch, S sequence, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.layers import ACTIVATIONS, Attention, FeedForward, padding_mask


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT; the names follow Hugging Face's ``config.json``."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read a Hugging Face config. Raises BadInput for a missing key, a wrong value or another variant."""
        positions = config.get("position_embedding_type", "absolute")
        if positions != "absolute":
            raise BadInput(f"config.json asks for {positions!r} positions; only 'absolute' ones are supported")
        found = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        missing = [name for name in _SIZES if name not in found]
        if missing:
            raise BadInput(f"config.json lacks {', '.join(missing)}; it is not a complete BERT config")
        for name, value in found.items():
            expected, fine = _EXPECTED.get(name, _SIZE)
            if not fine(value):
                raise BadInput(f"config.json has {name} = {value!r}; {expected} was expected")
        return cls(**found)


_Check = tuple[str, Callable[[Any], bool]]
_SIZE: _Check = ("a positive integer", lambda value: type(value) is int and value > 0)
_EXPECTED: dict[str, _Check] = {
    "layer_norm_eps": ("a positive number", lambda value: type(value) in (int, float) and value > 0),
    "hidden_act": (f"one of {', '.join(ACTIVATIONS)}", lambda value: value in list(ACTIVATIONS)),
}
_SIZES = [field.name for field in fields(BertConfig) if field.name not in _EXPECTED]


class BertEmbeddings(nn.Module):
    """Token, position and segment embeddings, summed and normalised."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.segment = nn.Embedding(c.type_vocab_size, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Three times [B, S] -> [B, S, E]"""
        # Positions count tokens, not padding, so that left- and right-padded batches give the same result.
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)  # [B, S]
        x = self.token(input_ids) + self.segment(token_type_ids) + self.position(positions)
        return self.norm(x)  # type: ignore[no-any-return]


class BertLayer(nn.Module):
    """Attention and feed-forward, each added to its input and then normalised (post-norm)."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(c.hidden_size, c.num_attention_heads)
        self.attention_norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.feed_forward = FeedForward(c.hidden_size, c.intermediate_size, c.hidden_act)
        self.output_norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, S, E], mask [B, 1, 1, S] -> [B, S, E]"""
        x = self.attention_norm(x + self.attention(x, mask))
        return self.output_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]


class Bert(nn.Module):
    """The encoder: token ids in, one vector per token out."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.config = c
        self.embeddings = BertEmbeddings(c)
        self.layers = nn.ModuleList(BertLayer(c) for _ in range(c.num_hidden_layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Three times int64 [B, S] -> last hidden state [B, S, E]"""
        x = self.embeddings(input_ids, attention_mask, token_type_ids)
        mask = padding_mask(attention_mask, x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        return x  # type: ignore[no-any-return]


class SentenceEmbedder(nn.Module):
    """Mean pooling over the tokens of a sentence. Reimers and Gurevych 2019, arXiv:1908.10084."""

    def __init__(self, encoder: Bert, normalize: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.normalize = normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Three times int64 [B, S] -> last hidden state [B, S, E], sentence embedding [B, E]"""
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        weights = attention_mask[:, :, None].to(hidden.dtype)  # [B, S, 1]
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return hidden, F.normalize(pooled, dim=-1) if self.normalize else pooled
