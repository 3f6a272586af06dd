"""What problems for an encoder-decoder share: pairs of texts, learned with teacher forcing, whole texts asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from onnxsmith.models.objectives.losses import cross_entropy
from onnxsmith.models.objectives.shifting import teacher_forced
from onnxsmith.models.recipes.bert_text import percents
from onnxsmith.models.recipes.words import EOS, PAD, padded
from onnxsmith.models.running import RunFeeds
from onnxsmith.models.training.decoding import translate
from onnxsmith.models.training.problem import TextProblem

_SHOWN = 3
Pair = tuple[list[int], list[int]]  # the ids of two texts, each with its end token


def forced(pairs: Sequence[Pair]) -> tuple[dict[str, Tensor], Tensor]:
    """What the model reads by input name, the target shifted, and the labels: int64 [B, S] or [B, T] each."""
    sources, targets = zip(*pairs, strict=True)
    (ids, mask), (target, target_mask) = padded(sources), padded(targets)
    read, labels = teacher_forced(target, target_mask, PAD)
    names = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")
    return dict(zip(names, (ids, mask, read, target_mask), strict=True)), labels


class TextToText(TextProblem):
    """Learns from pairs, and is asked for the whole targets of others."""

    figure = "exact match, %"
    held_out: Sequence[Pair]

    def collate(self, examples: list[Any]) -> list[Any]:
        return examples

    def pair_loss(self, pairs: Sequence[Pair], smoothing: float = 0.0) -> Tensor:
        """The cross-entropy of the targets, each token given those before it."""
        inputs, labels = forced(pairs)
        return cross_entropy(self.module(*inputs.values()), labels, smoothing)

    def reads(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        return forced(examples)[0]

    def answers(self, run: RunFeeds) -> list[Any]:
        """Greedy texts."""
        return self._greedy(run, self.held_out)

    def scores(self, answers: list[Any]) -> list[float]:
        return percents(answers, self.tokenizer.decode_batch([target for _, target in self.held_out]))

    def samples(self, run: RunFeeds) -> list[str]:
        some = self.held_out[:_SHOWN]
        sources = self.tokenizer.decode_batch([source for source, _ in some])
        return [f"{source} -> {text}" for source, text in zip(sources, self._greedy(run, some), strict=True)]

    def _greedy(self, run: RunFeeds, pairs: Sequence[Pair]) -> list[str]:
        ids, mask = padded([source for source, _ in pairs])
        limit = self.config["max_length"]
        return self.tokenizer.decode_batch(translate(run, ids.numpy(), mask.numpy(), start=PAD, end=EOS, limit=limit))
