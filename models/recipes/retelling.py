"""Pre-training and fine-tuning of a model that makes texts of texts, as BART and as T5 do it.

Lewis et al. 2019, arXiv:1910.13461, section 2.2; Raffel et al. 2019, arXiv:1910.10683, section 3.1.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Generator, Tensor

from onnxsmith.errors import BadInput
from onnxsmith.models.objectives.denoising import corrupt_spans, infill, permute_sentences
from onnxsmith.models.recipes.bert_text import percents
from onnxsmith.models.recipes.stories import Stories, vocabulary
from onnxsmith.models.recipes.text_to_text import Pair, TextToText, forced
from onnxsmith.models.recipes.words import EOS, PAD, SPECIAL, word_tokenizer
from onnxsmith.models.running import RunFeeds

_MASKS = tuple(f"<extra_id_{i}>" for i in range(12))  # BART has one, T5 one for each span
_NOISES = ("infill", "spans")
_LONGEST = 16  # tokens of a report; none has more than 15
Text = TypeVar("Text", str, tuple[str, str])


class _OfStories(TextToText):
    def __init__(self, model: Mapping[str, Any]) -> None:
        tokenizer = word_tokenizer((*_MASKS, *vocabulary()))
        super().__init__(model, tokenizer, SPECIAL, decoder_start_token_id=PAD, max_length=_LONGEST)

    def _ids(self, text: str) -> list[int]:
        """Without an end token."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def _ended(source: list[int], target: list[int]) -> Pair:
    return [*source, EOS], [*target, EOS]


def _apart(draw: Callable[[], Text], known: int, new: int) -> tuple[list[Text], list[Text]]:
    """So many different texts, and others that are not among them, in the order in which they are drawn."""
    found: dict[Text, None] = {}
    while len(found) < known + new:
        found[draw()] = None
    return list(found)[:known], list(found)[known:]


class Denoising(_OfStories):
    """Learns to restore stories, and is asked for each token of others, given those before it."""

    figure = "tokens right, %"

    @dataclass(frozen=True)
    class Settings:
        """``noise`` is "infill" (with sentences out of order: BART's) or "spans" (T5's); it takes ``density`` of the
        tokens.
        """

        noise: str = "infill"
        density: float = 0.3
        stories: int = 8000
        held_out: int = 200
        data_seed: int = 1

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        if settings.noise not in _NOISES:
            raise BadInput(f"[problem] has noise = {settings.noise!r}; one of {', '.join(_NOISES)} was expected")
        if not 0 < settings.density < 1:
            raise BadInput(f"[problem] has density = {settings.density}; a number between 0 and 1 was expected")
        super().__init__(model)
        self.noise, self.density = settings.noise, settings.density
        stories = Stories(settings.data_seed)
        known, new = _apart(lambda: " ".join(stories.document()), settings.stories, settings.held_out)
        self.examples = [self._ids(text) for text in known]
        generator = Generator().manual_seed(settings.data_seed)
        self.held_out = [self._corrupted(self._ids(text), generator) for text in new]

    def _corrupted(self, ids: list[int], generator: Generator) -> Pair:
        id_of = self.tokenizer.get_vocab()
        masks = [id_of[mask] for mask in _MASKS]
        if self.noise == "spans":
            return _ended(*corrupt_spans(ids, masks, generator, self.density))
        moved = permute_sentences(ids, [id_of["."]], generator)
        return _ended(infill(moved, masks[0], generator, self.density), ids)

    def loss(self, batch: list[list[int]], generator: Generator) -> Tensor:
        return self.pair_loss([self._corrupted(ids, generator) for ids in batch])

    def reads(self, examples: Sequence[list[int]]) -> dict[str, Tensor]:
        generator = Generator().manual_seed(0)
        return super().reads([self._corrupted(ids, generator) for ids in examples])

    def answers(self, run: RunFeeds) -> list[list[int]]:
        """The likeliest tokens, each behind the right ones."""
        inputs, _ = forced(self.held_out)
        found = run({name: ids.numpy() for name, ids in inputs.items()})["logits"].argmax(-1)
        return [row[: len(target)] for row, (_, target) in zip(found.tolist(), self.held_out, strict=True)]

    def scores(self, answers: list[list[int]]) -> list[float]:
        wanted = [token for _, target in self.held_out for token in target]
        return percents([token for row in answers for token in row], wanted)

    def samples(self, run: RunFeeds) -> list[str]:
        return []


class Reports(_OfStories):
    """Learns to tell a story in one sentence, and is asked for that of others."""

    @dataclass(frozen=True)
    class Settings:
        """How many examples there are to learn from, and to be asked."""

        labelled: int = 200
        held_out: int = 1000
        data_seed: int = 2

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model)
        stories = Stories(settings.data_seed)
        known, new = _apart(stories.report, settings.labelled, settings.held_out)
        self.examples, self.held_out = ([self._pair(*one) for one in some] for some in (known, new))

    def _pair(self, story: str, report: str) -> Pair:
        return _ended(self._ids(story), self._ids(report))

    def loss(self, batch: list[Pair], generator: Generator) -> Tensor:
        return self.pair_loss(batch)
