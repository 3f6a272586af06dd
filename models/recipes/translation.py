"""Translation between the two languages of ``languages``, with teacher forcing. Vaswani et al. 2017, section 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

from onnxsmith.models.objectives.losses import cross_entropy
from onnxsmith.models.objectives.shifting import teacher_forced
from onnxsmith.models.recipes.languages import make_pairs
from onnxsmith.models.recipes.words import EOS, PAD, SPECIAL, padded, word_tokenizer
from onnxsmith.models.running import RunFeeds
from onnxsmith.models.training.decoding import translate
from onnxsmith.models.training.problem import TextProblem

_LONGEST = 24  # tokens of a translation; the languages have none of more than 14
Pair = tuple[list[int], list[int]]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class Translation(TextProblem):
    """Learns from pairs, and is asked for whole sentences that it has not seen."""

    @dataclass(frozen=True)
    class Settings:
        """How many pairs there are to learn from and to be asked, and the smoothing of the labels."""

        pairs: int = 20000
        held_out: int = 500
        smoothing: float = 0.1
        data_seed: int = 1

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        pairs = make_pairs(settings.pairs + settings.held_out, settings.data_seed)
        words = sorted({word for pair in pairs for text in pair for word in text.split()})
        super().__init__(model, word_tokenizer(words), SPECIAL, decoder_start_token_id=PAD, max_length=_LONGEST)
        self.check_length(_LONGEST)
        self.settings = settings
        self.examples = [(self._ids(first), self._ids(second)) for first, second in pairs[: settings.pairs]]
        self.held_out = pairs[settings.pairs :]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def collate(self, examples: list[Pair]) -> Batch:
        """Source ids and mask [B, S], target ids and mask [B, T]."""
        sources, targets = zip(*examples, strict=True)
        return (*padded(sources), *padded(targets))

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        ids, mask, target, target_mask = batch
        read, labels = teacher_forced(target, target_mask, PAD)
        return cross_entropy(self.module(ids, mask, read, target_mask), labels, self.settings.smoothing)

    def answers(self, run: RunFeeds) -> list[str]:
        """Greedy translations."""
        ids, mask = padded([self._ids(first) for first, _ in self.held_out])
        found = translate(run, ids.numpy(), mask.numpy(), start=PAD, end=EOS, limit=_LONGEST)
        return self.tokenizer.decode_batch(found)

    def quality(self, answers: list[str]) -> dict[str, float]:
        right = sum(answer == second for answer, (_, second) in zip(answers, self.held_out, strict=True))
        return {"exact match, %": 100 * right / len(self.held_out)}

    def samples(self, run: RunFeeds) -> list[str]:
        shown = [(first, answer) for (first, _), answer in zip(self.held_out, self.answers(run), strict=True)][:5]
        return [f"{first} -> {answer}" for first, answer in shown]
