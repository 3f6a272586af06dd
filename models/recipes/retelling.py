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
from onnxsmith.models.objectives.losses import cross_entropy
from onnxsmith.models.objectives.shifting import teacher_forced
from onnxsmith.models.recipes.bert_text import share_right
from onnxsmith.models.recipes.stories import Stories, vocabulary
from onnxsmith.models.recipes.words import EOS, PAD, SPECIAL, padded, word_tokenizer
from onnxsmith.models.running import RunFeeds
from onnxsmith.models.training.decoding import translate
from onnxsmith.models.training.problem import TextProblem

_MASKS = tuple(f"<extra_id_{i}>" for i in range(12))  # BART has one, T5 one for each span
_NOISES = ("infill", "spans")
_LONGEST = 16  # tokens of a report; none has more than 15
Pair = tuple[list[int], list[int]]
Text = TypeVar("Text", str, tuple[str, str])


class _TextToText(TextProblem):
    held_out: list[Pair]

    def __init__(self, model: Mapping[str, Any]) -> None:
        tokenizer = word_tokenizer((*_MASKS, *vocabulary()))
        super().__init__(model, tokenizer, SPECIAL, decoder_start_token_id=PAD, max_length=_LONGEST)

    def _ids(self, text: str) -> list[int]:
        """Without an end token."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def collate(self, examples: list[Any]) -> list[Any]:
        return examples

    def _loss(self, pairs: Sequence[Pair]) -> Tensor:
        ids, mask, read, read_mask, labels = _batch(pairs)
        return cross_entropy(self.module(ids, mask, read, read_mask), labels)


def _batch(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pairs of texts without end tokens -> source and mask [B, S]; what the decoder reads, mask and labels [B, T]."""
    sources, targets = ([[*ids, EOS] for ids in side] for side in zip(*pairs, strict=True))
    target, mask = padded(targets)
    read, labels = teacher_forced(target, mask, PAD)
    return *padded(sources), read, mask, labels


def _apart(draw: Callable[[], Text], known: int, new: int) -> tuple[list[Text], list[Text]]:
    """So many different texts, and others that are not among them, in the order in which they are drawn."""
    found: dict[Text, None] = {}
    while len(found) < known + new:
        found[draw()] = None
    return list(found)[:known], list(found)[known:]


class Denoising(_TextToText):
    """Learns to restore stories, and is asked for each token of others, given those before it."""

    @dataclass(frozen=True)
    class Settings:
        """``noise`` is "infill" (with sentences out of order: BART's) or "spans" (T5's)."""

        noise: str = "infill"
        stories: int = 8000
        held_out: int = 200
        data_seed: int = 1

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        if settings.noise not in _NOISES:
            raise BadInput(f"[problem] has noise = {settings.noise!r}; one of {', '.join(_NOISES)} was expected")
        super().__init__(model)
        self.noise = settings.noise
        stories = Stories(settings.data_seed)
        known, new = _apart(lambda: " ".join(stories.document()), settings.stories, settings.held_out)
        self.examples = [self._ids(text) for text in known]
        generator = Generator().manual_seed(settings.data_seed)
        self.held_out = [self._corrupted(self._ids(text), generator) for text in new]

    def _corrupted(self, ids: list[int], generator: Generator) -> Pair:
        id_of = self.tokenizer.get_vocab()
        masks = [id_of[mask] for mask in _MASKS]
        if self.noise == "spans":
            return corrupt_spans(ids, masks, generator)
        moved = permute_sentences(ids, [id_of["."]], generator)
        return infill(moved, masks[0], generator), ids

    def loss(self, batch: list[list[int]], generator: Generator) -> Tensor:
        return self._loss([self._corrupted(ids, generator) for ids in batch])

    def answers(self, run: RunFeeds) -> list[list[int]]:
        """The likeliest tokens, each behind the right ones."""
        ids, mask, read, read_mask, _ = (tensor.numpy() for tensor in _batch(self.held_out))
        texts = {"input_ids": ids, "attention_mask": mask}
        found = run({**texts, "decoder_input_ids": read, "decoder_attention_mask": read_mask})["logits"].argmax(-1)
        return [row[: len(target) + 1] for row, (_, target) in zip(found.tolist(), self.held_out, strict=True)]

    def quality(self, answers: list[list[int]]) -> dict[str, float]:
        wanted = [token for _, target in self.held_out for token in (*target, EOS)]
        return {"tokens right, %": share_right([token for row in answers for token in row], wanted)}


class Reports(_TextToText):
    """Learns to tell a story in one sentence, and is asked for that of others."""

    @dataclass(frozen=True)
    class Settings:
        """How many examples there are to learn from, and to be asked."""

        labelled: int = 20000
        held_out: int = 300
        data_seed: int = 2

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model)
        stories = Stories(settings.data_seed)
        known, new = _apart(stories.report, settings.labelled, settings.held_out)
        self.examples, self.held_out = ([self._pair(*one) for one in some] for some in (known, new))

    def _pair(self, story: str, report: str) -> Pair:
        return self._ids(story), self._ids(report)

    def loss(self, batch: list[Pair], generator: Generator) -> Tensor:
        return self._loss(batch)

    def answers(self, run: RunFeeds) -> list[str]:
        """Greedy texts."""
        ids, mask, *_ = _batch(self.held_out)
        found = translate(run, ids.numpy(), mask.numpy(), start=PAD, end=EOS, limit=_LONGEST)
        return self.tokenizer.decode_batch(found)

    def quality(self, answers: list[str]) -> dict[str, float]:
        wanted = [self.tokenizer.decode(target) for _, target in self.held_out]
        return {"exact match, %": share_right(answers, wanted)}

    def samples(self, run: RunFeeds) -> list[str]:
        answers = self.answers(run)[:3]
        return [
            f"{self.tokenizer.decode(ids)} -> {text}" for (ids, _), text in zip(self.held_out, answers, strict=False)
        ]
