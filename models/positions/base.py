"""What every kind of positions can do: change the embeddings, the attention scores, or the queries and keys.

Shapes: B batch, S query length, T key length, H heads, D head size, E hidden size.
"""

from __future__ import annotations

from torch import Tensor


def token_positions(attention_mask: Tensor) -> Tensor:
    """[B, T] of 1 at tokens and 0 at padding -> int64 [B, T]: 0, 1, 2, ... over the tokens

    Places count tokens and not padding, so that it does not matter where the padding is.
    """
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


class Positions:
    """A model calls all three; a kind overrides the one that it works by. Places are what ``token_positions`` gives."""

    def embed(self, x: Tensor, places: Tensor) -> Tensor:
        """Embeddings [B, S, E] and places [B, S] -> embeddings [B, S, E]"""
        return x

    def bias(self, mask: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Additive mask [B, 1, S|1, T], places [B, S] and [B, T] -> what is added to the scores, [B, H|1, S|1, T]"""
        return mask

    def tables(self, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """[B, S] -> cosines and sines [B, 1, S, D] that ``rotate`` turns queries and keys by"""
        return None
