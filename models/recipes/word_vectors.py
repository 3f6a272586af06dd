"""Word vectors from which words stand near which. Mikolov et al. 2013, arXiv:1310.4546."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from onnxsmith.models.objectives.losses import SkipGram, noise_distribution
from onnxsmith.models.recipes.classes import CLASS_OF, make_sentences
from onnxsmith.models.running import Feeds, RunFeeds
from onnxsmith.models.training.files import replacing
from onnxsmith.models.training.problem import Problem
from onnxsmith.models.training.tables import fill

VECTORS = "vectors.txt"
_SHOWN = ("dog", "baker", "hammer", "purple")


@dataclass(frozen=True)
class _Sizes:
    """What [model] says: features of a vector."""

    size: int


class WordVectors(Problem):
    """Is asked for the nearest words to each word of a known class: they should be of that class too."""

    @dataclass(frozen=True)
    class Settings:
        """How far context reaches to either side, how many negatives each pair has, and how many of the nearest words
        are looked at.
        """

        sentences: int = 5000
        window: int = 3
        negatives: int = 5
        neighbours: int = 5
        data_seed: int = 1

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        sentences = make_sentences(settings.sentences, settings.data_seed)
        counts = Counter(word for sentence in sentences for word in sentence)
        self.settings = settings
        self.words = sorted(counts)
        self.asked = [word for word in self.words if word in CLASS_OF]
        self.ids = {word: i for i, word in enumerate(self.words)}
        self.noise = noise_distribution(torch.tensor([counts[word] for word in self.words]))
        self.module: SkipGram = SkipGram(len(self.words), fill(_Sizes, model, "[model]").size)
        self.examples = list(self._pairs(sentences))

    def _pairs(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
        """Each word with each one of those around it."""
        for sentence in sentences:
            ids = [self.ids[word] for word in sentence]
            for at, centre in enumerate(ids):
                around = ids[max(at - self.settings.window, 0) : at] + ids[at + 1 : at + 1 + self.settings.window]
                yield from ((centre, context) for context in around)

    def collate(self, examples: list[tuple[int, int]]) -> Tensor:
        """[B, 2]"""
        return torch.tensor(examples)

    def loss(self, batch: Tensor, generator: Generator) -> Tensor:
        shape = len(batch), self.settings.negatives
        drawn = self.noise.multinomial(shape[0] * shape[1], replacement=True, generator=generator)
        return self.module(*batch.unbind(1), drawn.reshape(shape))  # type: ignore[no-any-return]

    def answers(self, run: RunFeeds) -> list[list[str]]:
        """The nearest words to each word of ``CLASSES``, by the cosine, nearest first."""
        return self._nearest(run, self.asked)

    def _nearest(self, run: RunFeeds, words: Sequence[str]) -> list[list[str]]:
        found = run({"words": np.array([self.ids[word] for word in words])})["nearest"]
        return [[self.words[id] for id in row] for row in found.tolist()]

    def runner(self) -> RunFeeds:
        """From ``words``, int64 [N], to the ``nearest`` ones, int64 [N, K]."""

        def run(feeds: Feeds) -> Feeds:
            found = [self.module.nearest(word, self.settings.neighbours) for word in feeds["words"].tolist()]
            return {"nearest": np.array([[word for word, _ in near] for near in found])}

        return run

    def quality(self, answers: list[list[str]]) -> dict[str, float]:
        pairs = [(word, near) for word, found in zip(self.asked, answers, strict=True) for near in found]
        chances = [(word, other) for word in self.asked for other in self.words if other != word]
        return {"nearest words of the same class, %": _alike(pairs), "by chance, %": _alike(chances)}

    def samples(self, run: RunFeeds) -> list[str]:
        shown = [word for word in _SHOWN if word in self.ids]
        found = self._nearest(run, shown)
        return [f"{word}: {', '.join(near)}" for word, near in zip(shown, found, strict=True)]

    def save(self, folder: Path) -> None:
        """Write the vectors as word2vec does in text: a line with both sizes, then a line for each word."""
        rows = self.module.centre.weight.tolist()
        lines = (f"{word} {' '.join(map(repr, row))}" for word, row in zip(self.words, rows, strict=True))
        with replacing(folder / VECTORS) as path:
            path.write_text("\n".join([f"{len(rows)} {len(rows[0])}", *lines]) + "\n", encoding="utf-8")


def _alike(pairs: Sequence[tuple[str, str]]) -> float:
    """How many of the second words are of the first one's class, in percent."""
    return 100 * sum(CLASS_OF.get(other) == CLASS_OF[word] for word, other in pairs) / len(pairs)
