"""What a BERT is fine-tuned for: pairs of sentences, answers in a text, ways to go on. Devlin et al. 2018, section 4.

Labels come with the one half of the words, questions with the other one: see ``stories.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from onnxsmith.models.objectives.losses import cross_entropy, span_loss
from onnxsmith.models.recipes.bert_text import SPECIAL, Inputs, Questions, encoded, pair_tokenizer, percents
from onnxsmith.models.recipes.stories import LABELS, Stories, vocabulary

_CHOICES = 4
Outputs = Mapping[str, NDArray[Any]]


class _Understanding(Questions):
    @dataclass(frozen=True)
    class Settings:
        """How many labelled examples there are, and questions of other words."""

        labelled: int = 1500
        held_out: int = 2000
        data_seed: int = 2

    def __init__(self, model: Mapping[str, Any], settings: Settings, **config: Any) -> None:
        super().__init__(model, pair_tokenizer(vocabulary()), SPECIAL, **config)
        known, new = Stories(settings.data_seed, half=0), Stories(settings.data_seed + 1, half=1)
        self.examples = [self.example(known) for _ in range(settings.labelled)]
        self.held_out = [self.example(new) for _ in range(settings.held_out)]

    @abstractmethod
    def example(self, stories: Stories) -> Any:
        """A question with its answer, the last of its parts."""

    def collate(self, examples: list[Any]) -> list[Any]:
        return examples

    def scores(self, answers: list[Any]) -> list[float]:
        return percents(answers, [example[-1] for example in self.held_out])


class Pairs(_Understanding):
    """Whether a sentence is likely by another one: "yes", "no" or "unknown"."""

    def __init__(self, model: Mapping[str, Any], settings: Any) -> None:
        super().__init__(model, settings, id2label={str(i): label for i, label in enumerate(LABELS)})

    def example(self, stories: Stories) -> tuple[str, str, str]:
        return stories.pair()

    def inputs(self, questions: Sequence[tuple[str, str, str]]) -> Inputs:
        return encoded(self.tokenizer, [(first, second) for first, second, _ in questions])

    def loss(self, batch: list[tuple[str, str, str]], generator: Generator) -> Tensor:
        labels = torch.tensor([LABELS.index(label) for *_, label in batch])
        return cross_entropy(self.module(**self.inputs(batch)), labels)

    def answer(self, outputs: Outputs, questions: Sequence[Any]) -> list[str]:
        return [LABELS[i] for i in outputs["logits"].argmax(-1)]


class Answers(_Understanding):
    """Which word of a story answers a question."""

    def example(self, stories: Stories) -> tuple[str, str, str]:
        return stories.question()

    def inputs(self, questions: Sequence[tuple[str, str, str]]) -> Inputs:
        return encoded(self.tokenizer, [(question, story) for question, story, _ in questions])

    def loss(self, batch: list[tuple[str, str, str]], generator: Generator) -> Tensor:
        """The answer is one word, where the span both starts and ends."""
        inputs = self.inputs(batch)
        wanted = torch.tensor([self.tokenizer.token_to_id(answer) for *_, answer in batch])
        at = (inputs["input_ids"] == wanted[:, None]).int().argmax(1)  # nobody else has that word
        start, end = self.module(**inputs)
        return span_loss(start, end, at, at)

    def answer(self, outputs: Outputs, questions: Sequence[tuple[str, str, str]]) -> list[str]:
        """The words from the likeliest start to the likeliest end."""
        ids = self.inputs(questions)["input_ids"].tolist()
        ends = (outputs[name].argmax(-1).tolist() for name in ("start_logits", "end_logits"))
        return [self.tokenizer.decode(row[start : end + 1]) for row, start, end in zip(ids, *ends, strict=True)]


class Choices(_Understanding):
    """Which of four sentences goes on with a story."""

    def example(self, stories: Stories) -> tuple[str, list[str], int]:
        return stories.choice(_CHOICES)

    def inputs(self, questions: Sequence[tuple[str, list[str], int]]) -> Inputs:
        """int64 [B, C, S] each"""
        texts = [(start, choice) for start, choices, _ in questions for choice in choices]
        flat = encoded(self.tokenizer, texts)  # [B*C, S] each
        return {name: ids.reshape(-1, _CHOICES, ids.shape[1]) for name, ids in flat.items()}

    def loss(self, batch: list[tuple[str, list[str], int]], generator: Generator) -> Tensor:
        return F.cross_entropy(self.module(**self.inputs(batch)), torch.tensor([right for *_, right in batch]))

    def answer(self, outputs: Outputs, questions: Sequence[Any]) -> list[int]:
        return [int(i) for i in np.argmax(outputs["logits"], -1)]
