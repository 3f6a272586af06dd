"""What encoder-decoders share: the whole model for training and checking, and the parts that a runtime calls.

Shapes: B batch, S source length, T target length, P target tokens in the cache, E hidden size, H heads, D head size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from onnxsmith.models.blocks import Decoder, Stack
from onnxsmith.models.cache import Cache, KeysValues, paired
from onnxsmith.models.layers import causal_mask, padding_mask
from onnxsmith.models.positions import Positions, token_positions


class Embeddings(nn.Module):
    """What one side adds to the embeddings of its tokens, and the norm after it, where there is one."""

    def __init__(self, position: Positions, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.position = position
        self.norm = norm

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """[B, S, E] and [B, S] -> [B, S, E]"""
        x = self.position.embed(x, places)
        return x if self.norm is None else self.norm(x)


class TextEncoder(nn.Module):
    """Source token ids in, one vector per token out. Embeddings are multiplied by ``scale``."""

    def __init__(self, token: nn.Embedding, embeddings: Embeddings, encoder: Stack, *, scale: float = 1.0) -> None:
        super().__init__()
        self.token = token
        self.scale = scale
        self.encoder_embeddings = embeddings
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As ``encode``."""
        return self.encode(input_ids, attention_mask)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> the encoder's last hidden state [B, S, E]"""
        places = token_positions(attention_mask)
        position = self.encoder_embeddings.position
        x = self.encoder_embeddings(self.embed(input_ids), places)
        mask = position.bias(padding_mask(attention_mask, x.dtype), places, places)  # [B, H|1, S|1, S]
        return self.encoder(x, mask, position.tables(places))  # type: ignore[no-any-return]

    def embed(self, ids: Tensor) -> Tensor:
        """[B, S] -> [B, S, E]"""
        x: Tensor = self.token(ids)
        return x if self.scale == 1 else x * self.scale


class EncoderDecoder(TextEncoder):
    """Both sides have one table of embeddings. A model says how it scores; a bare one gives its hidden states.

    Two parts make a runtime: ``source`` once for a text, and ``step`` for as many tokens of the target at a time as
    there are, with nothing in the cache at first.
    """

    def __init__(
        self,
        token: nn.Embedding,
        encoder_embeddings: Embeddings,
        encoder: Stack,
        decoder_embeddings: Embeddings,
        decoder: Decoder,
        *,
        scale: float = 1.0,
    ) -> None:
        super().__init__(token, encoder_embeddings, encoder, scale=scale)
        self.decoder_embeddings = decoder_embeddings
        self.decoder = decoder

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor
    ) -> Tensor:
        """int64 ids and masks, two [B, S] and two [B, T] -> logits [B, T, V]"""
        memory = self.encode(input_ids, attention_mask)
        return self.read(decoder_input_ids, decoder_attention_mask, attention_mask, memory)

    def read(self, input_ids: Tensor, attention_mask: Tensor, encoder_attention_mask: Tensor, memory: Tensor) -> Tensor:
        """The target two times [B, T], the source's mask [B, S], what ``encode`` gave [B, S, E] -> logits [B, T, V]"""
        keys_values = self.decoder.keys_values(memory)
        return self.score(self.decode(input_ids, attention_mask, keys_values, encoder_attention_mask))

    def source(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Two times [B, S] -> keys and values [B, H, S, D] of each layer in turn, for ``step``"""
        pairs = self.decoder.keys_values(self.encode(input_ids, attention_mask))
        return tuple(tensor for pair in pairs for tensor in pair)

    def step(
        self, input_ids: Tensor, attention_mask: Tensor, encoder_attention_mask: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """New tokens [B, T], mask [B, P + T], the source's mask [B, S] -> logits [B, T, V] and the cache after them

        ``past`` is the cache before them, keys and values [B, H, P, D] of each layer in turn, and then the ``source``.
        """
        own, memory = past[: len(past) // 2], past[len(past) // 2 :]
        cache = Cache(own)
        hidden = self.decode(input_ids, attention_mask, paired(memory), encoder_attention_mask, cache)
        return self.score(hidden), *cache.present

    def decode(
        self, ids: Tensor, mask: Tensor, memory: Sequence[KeysValues], memory_mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """ids [B, T], mask [B, P + T], keys and values of the source and its mask [B, S] -> hidden state [B, T, E]"""
        length = ids.shape[1]
        places = token_positions(mask)  # [B, P + T]
        new = places[:, -length:]  # [B, T]
        position = self.decoder_embeddings.position
        x = self.decoder_embeddings(self.embed(ids), new)
        own = position.bias(causal_mask(mask, length, x.dtype), new, places)  # [B, H|1, T, P + T]
        others = padding_mask(memory_mask, x.dtype)  # [B, 1, 1, S]
        return self.decoder(x, own, memory, others, position.tables(new), cache)  # type: ignore[no-any-return]

    def score(self, hidden: Tensor) -> Tensor:
        """[B, T, E] -> logits [B, T, V], or what the model gives for them"""
        return hidden
