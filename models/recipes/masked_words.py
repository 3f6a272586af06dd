"""Pre-training of a BERT: masked words, and whether a paragraph follows another. Devlin et al. 2018, section 3.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from onnxsmith.models.objectives.losses import IGNORED, cross_entropy
from onnxsmith.models.objectives.masking import mask_tokens, sentence_pair
from onnxsmith.models.recipes.bert_text import (
    CLS,
    MASK,
    SEP,
    SPECIAL,
    Inputs,
    Questions,
    inputs_of,
    pair_tokenizer,
    percents,
)
from onnxsmith.models.recipes.stories import Stories, vocabulary

Place = tuple[int, int]  # a document, and a paragraph of it that is not the last
Question = tuple[list[int], list[int]]  # the ids of a text with masked words, and the labels


class MaskedWords(Questions):
    """Learns from stories without labels, and is asked for the masked words of others."""

    figure = "masked words right, %"

    @dataclass(frozen=True)
    class Settings:
        """How many stories there are to learn from, and paragraphs with masked words to be asked."""

        stories: int = 8000
        held_out: int = 300
        data_seed: int = 1

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, pair_tokenizer(vocabulary()), SPECIAL)
        # It is a part of the training alone: what is exported fills masks.
        self.module.add_module("next_paragraph", nn.Linear(self.config["hidden_size"], 2))
        stories = Stories(settings.data_seed)
        known = [stories.document() for _ in range(settings.stories)]
        self.documents = [[self._ids(paragraph) for paragraph in document] for document in known]
        self.examples: list[Place] = [(i, j) for i, one in enumerate(known) for j in range(len(one) - 1)]
        texts = {paragraph for document in known for paragraph in document}
        self.held_out = self._questions(stories, settings.held_out, texts)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _questions(self, stories: Stories, count: int, known: set[str]) -> list[Question]:
        """Paragraphs that are new, with masks."""
        new: list[list[int]] = []
        while len(new) < count:
            new += [self._ids(text) for text in stories.document() if text not in known]
        inputs, labels = self._masked(
            self._joined([(one, []) for one in new[:count]]), torch.Generator().manual_seed(0)
        )
        lengths = inputs["attention_mask"].sum(1).tolist()
        rows = zip(inputs["input_ids"].tolist(), labels.tolist(), lengths, strict=True)
        return [(ids[:length], wanted[:length]) for ids, wanted, length in rows]

    def collate(self, examples: list[Place]) -> list[Place]:
        return examples

    def loss(self, batch: list[Place], generator: Generator) -> Tensor:
        """The sum of both losses; pairs and masks are drawn anew each time."""
        pairs = [sentence_pair(self.documents, *place, generator) for place in batch]
        inputs, labels = self._masked(self._joined([(first, second) for first, second, _ in pairs]), generator)
        hidden = self.module.encoder(**inputs)  # type: ignore[operator]
        words = self.module.score(hidden)  # type: ignore[operator]
        follows = self.module.next_paragraph(hidden[:, 0])  # type: ignore[operator]
        return cross_entropy(words, labels) + cross_entropy(follows, torch.tensor([label for *_, label in pairs]))

    def _joined(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Inputs:
        """Two paragraphs each, or one, as the tokenizer would join them."""
        ids = [[CLS, *first, SEP, *second, *([SEP] if second else [])] for first, second in pairs]
        segments = [
            [int(i > len(first) + 1) for i in range(len(row))] for row, (first, _) in zip(ids, pairs, strict=True)
        ]
        return inputs_of(ids, segments)

    def _masked(self, inputs: Inputs, generator: Generator) -> tuple[Inputs, Tensor]:
        eligible = inputs["input_ids"] >= len(SPECIAL)
        ids, labels = mask_tokens(inputs["input_ids"], eligible, self.tokenizer.get_vocab_size(), MASK, generator)
        return {**inputs, "input_ids": ids}, labels

    def reads(self, examples: Sequence[Place]) -> Inputs:
        """Paragraphs with the ones behind them, and no masks."""
        return self._joined([(self.documents[i][j], self.documents[i][j + 1]) for i, j in examples])

    def inputs(self, questions: Sequence[Question]) -> Inputs:
        return inputs_of([ids for ids, _ in questions], [[0] * len(ids) for ids, _ in questions])

    def answer(self, outputs: Mapping[str, NDArray[Any]], questions: Sequence[Question]) -> list[list[int]]:
        """The likeliest words at the places that are asked for."""
        best = outputs["logits"].argmax(-1).tolist()
        return [
            [word for word, label in zip(row, labels, strict=False) if label != IGNORED]
            for row, (_, labels) in zip(best, questions, strict=True)
        ]

    def scores(self, answers: list[list[int]]) -> list[float]:
        wanted = [label for _, labels in self.held_out for label in labels if label != IGNORED]
        return percents([word for row in answers for word in row], wanted)
