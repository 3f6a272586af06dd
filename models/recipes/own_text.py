"""A language model of this project's own text. Radford et al. 2019, section 2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from onnxsmith.errors import BadInput
from onnxsmith.models.objectives.losses import IGNORED, cross_entropy
from onnxsmith.models.objectives.shifting import next_tokens
from onnxsmith.models.recipes.corpus import END, own_texts, train_bpe, xz_bits
from onnxsmith.models.recipes.words import padded
from onnxsmith.models.running import RunFeeds
from onnxsmith.models.training.decoding import sample
from onnxsmith.models.training.problem import TextProblem

_BATCH = 32
_PROMPTS = ("The attention", "Raises BadInput", "A tensor")


class OwnText(TextProblem):
    """Learns to go on with docstrings, and is asked how likely it finds those of files that it has not seen."""

    figure = "bits per character"

    @dataclass(frozen=True)
    class Settings:
        """In tokens: the vocabulary, a window of text, and from the start of one window to the next's.

        Of every ``held_out`` files one is held out, and another one validates.
        """

        vocabulary: int = 1024
        window: int = 128
        stride: int = 16
        held_out: int = 10

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        texts = own_texts()
        other, new = (texts[start :: settings.held_out] for start in (settings.held_out // 2, 0))
        apart = {*other, *new}
        known = [text for text in texts if text not in apart]
        self.settings = settings
        super().__init__(model, train_bpe(known, settings.vocabulary), dict.fromkeys(("bos", "eos", "unk"), END))
        self.check_length(settings.window)
        stream, size = torch.tensor(self._stream(known)), settings.window + 1
        if len(stream) < size:
            raise BadInput(f"[problem] has window = {settings.window}, and there are {len(stream)} tokens; take less")
        self.examples = list(stream.unfold(0, size, settings.stride))
        self.validating, self.held_out = (_windows(self._stream(some), settings.window) for some in (other, new))
        self.characters = sum(map(len, new))
        self.compressed = xz_bits(known, new)

    def _stream(self, texts: Sequence[str]) -> list[int]:
        """All texts as one, with an end token before each."""
        return [id for text in self.tokenizer.encode_batch([END + text for text in texts]) for id in text.ids]

    def collate(self, examples: list[Tensor]) -> Tensor:
        """[B, S + 1]"""
        return torch.stack(examples)

    def loss(self, batch: Tensor, generator: Generator) -> Tensor:
        ids, mask, labels = next_tokens(batch, torch.ones_like(batch))
        return cross_entropy(self.module(ids, mask), labels)

    def reads(self, examples: Sequence[Tensor]) -> dict[str, Tensor]:
        ids = torch.stack(list(examples))[:, :-1]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def validation(self) -> float:
        """The bits of the files that validate."""
        return sum(_bits(self.runner(), self.validating))

    def answers(self, run: RunFeeds) -> list[float]:
        """The bits of each window of the held-out text: -log2 of its likelihood, given the token before it."""
        return _bits(run, self.held_out)

    def scores(self, answers: list[float]) -> list[float]:
        return [bits * len(answers) / self.characters for bits in answers]

    def quality(self, answers: list[float]) -> dict[str, float]:
        return {**super().quality(answers), "bits of xz": self.compressed / self.characters}

    def samples(self, run: RunFeeds) -> list[str]:
        """Texts as the model goes on with them by chance, the same in every run."""
        random, end = np.random.default_rng(0), self.config["eos_token_id"]
        prompts = [self.tokenizer.encode(END + prompt).ids for prompt in _PROMPTS]
        room = self.settings.window
        found = [sample(run, prompt, random, end=end, limit=room - len(prompt)) for prompt in prompts]
        return [" ".join(self.tokenizer.decode(ids).split()) for ids in found]


def _windows(ids: list[int], size: int) -> list[list[int]]:
    """Windows of ``size`` tokens with the one before each, so that every token but the first is asked for once."""
    return [ids[start : start + size + 1] for start in range(0, len(ids) - 1, size)]


def _bits(run: RunFeeds, windows: Sequence[Sequence[int]]) -> list[float]:
    batches = (windows[start : start + _BATCH] for start in range(0, len(windows), _BATCH))
    return [bits for batch in batches for bits in _batch_bits(run, batch)]


def _batch_bits(run: RunFeeds, windows: Sequence[Sequence[int]]) -> list[float]:
    ids, mask, labels = next_tokens(*padded(windows))
    logits = run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})["logits"]  # [B, S, V]
    nats = F.cross_entropy(
        torch.tensor(logits).double().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )
    return (nats.sum(1) / math.log(2)).tolist()
