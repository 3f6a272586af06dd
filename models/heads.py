"""What stands on an encoder, or on a decoder: one small module per task.

Most are of Devlin et al. 2018, arXiv:1810.04805, section 4.

Shapes: B batch, C choices, S sequence, E hidden size, V vocabulary, L labels. Inputs are int64; where the encoder has
no segments there are no ``token_type_ids``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onnxsmith.models.bert import Bert
from onnxsmith.models.cache import Cache
from onnxsmith.models.gpt import Gpt
from onnxsmith.models.layers import activation
from onnxsmith.models.llama import Llama


class MaskedLM(nn.Module):
    """Scores every token of the vocabulary at every place, with the embedding table as the last product."""

    def __init__(self, encoder: Bert, act: str) -> None:
        super().__init__()
        c = encoder.config
        self.encoder = encoder
        self.dense = nn.Linear(c.hidden_size, c.hidden_size)
        self.act = activation(act)
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(c.vocab_size))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Three times [B, S] -> logits [B, S, V]"""
        return self.score(self.encoder(input_ids, attention_mask, token_type_ids))

    def score(self, hidden: Tensor) -> Tensor:
        """[B, S, E] -> logits [B, S, V]"""
        x = self.norm(self.act(self.dense(hidden)))
        return F.linear(x, self.encoder.embeddings.token.weight, self.bias)


class Classifier(nn.Module):
    """Labels a text, or a pair of texts, by its first token. ``labels`` is two for next-sentence prediction."""

    def __init__(self, encoder: Bert, labels: int, act: str) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.dense = nn.Linear(width, width)
        self.act = activation(act)
        self.output = nn.Linear(width, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Three times [B, S] -> logits [B, L]"""
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        x = first_token(hidden, attention_mask)
        return self.output(self.act(self.dense(x)))  # type: ignore[no-any-return]


class MultipleChoice(Classifier):
    """Scores each of several continuations of a text, as in SWAG. Zellers et al. 2018, arXiv:1808.05326."""

    def __init__(self, encoder: Bert, act: str) -> None:
        super().__init__(encoder, 1, act)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Three times [B, C, S] -> logits [B, C]"""
        segments = None if token_type_ids is None else token_type_ids.flatten(0, 1)
        scores = super().forward(input_ids.flatten(0, 1), attention_mask.flatten(0, 1), segments)  # [B*C, 1]
        return scores.reshape(input_ids.shape[:2])


class SpanAnswer(nn.Module):
    """Scores each token as the start and as the end of the answer, as in SQuAD."""

    def __init__(self, encoder: Bert) -> None:
        super().__init__()
        self.encoder = encoder
        self.output = nn.Linear(encoder.config.hidden_size, 2)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Three times [B, S] -> logits of the start [B, S] and of the end [B, S]"""
        x = self.output(self.encoder(input_ids, attention_mask, token_type_ids))  # [B, S, 2]
        return x[:, :, 0], x[:, :, 1]


class LanguageModel(nn.Module):
    """Scores the next token; a ``tied`` head is the embedding table. ``decoder`` is a Gpt or a Llama."""

    def __init__(self, decoder: Gpt | Llama, *, tied: bool = True) -> None:
        super().__init__()
        c = decoder.config
        self.decoder = decoder
        self.head = None if tied else nn.Linear(c.hidden_size, c.vocab_size, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> logits [B, S, V]"""
        return self._score(self.decoder(input_ids, attention_mask))

    def step(self, input_ids: Tensor, attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """New tokens int64 [B, S], mask int64 [B, P + S] -> logits [B, S, V] and the cache after them

        ``past`` is the cache before them: keys and values [B, KV, P, D] of each layer in turn. P may be 0.
        """
        cache = Cache(past)
        hidden = self.decoder(input_ids, attention_mask, cache)
        return self._score(hidden), *cache.present

    def _score(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.decoder.token.weight if self.head is None else self.head.weight)


class DecoderClassifier(nn.Module):
    """Labels a text by its last token, the only one that has seen all of it; ``decoder`` is any of that form."""

    def __init__(self, decoder: nn.Module, hidden: int, labels: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.output = nn.Linear(hidden, labels, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two times int64 [B, S] -> logits [B, L]"""
        return self.output(last_token(self.decoder(input_ids, attention_mask), attention_mask))  # type: ignore[no-any-return]


def first_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """[B, S, E] and [B, S] -> [B, E]: the first place that is no padding, whichever side the padding is on"""
    before = (attention_mask.cumsum(1) == 0).sum(1).clamp(max=hidden.shape[1] - 1)  # [B]
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), before]


def last_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """[B, S, E] and [B, S] -> [B, E]: the last place that is no padding"""
    steps = torch.arange(hidden.shape[1], device=hidden.device)
    last = (steps * (attention_mask != 0)).amax(1)  # [B]
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
