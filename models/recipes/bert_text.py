"""What problems for a BERT share: words as tokens, texts and pairs as its inputs. Devlin et al. 2018, section 3."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, processors
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor

from onnxsmith.models.recipes.words import padded
from onnxsmith.models.running import RunFeeds
from onnxsmith.models.training.problem import TextProblem

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
PAD, UNK, CLS, SEP, MASK = range(5)  # their ids in a ``pair_tokenizer``
BATCH = 50  # questions that are answered at a time
Text = str | tuple[str, str]
Inputs = dict[str, Tensor]


def pair_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Splits at spaces; a text begins with ``[CLS]``, and it and a second one end with ``[SEP]``."""
    names = list(dict.fromkeys((*SPECIAL.values(), *words)))
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL["unk"]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def encoded(tokenizer: Tokenizer, texts: Sequence[Text]) -> Inputs:
    """Texts or pairs as ids, mask and segments, int64 [B, S] each."""
    found = tokenizer.encode_batch(list(texts))
    return inputs_of([one.ids for one in found], [one.type_ids for one in found])


def inputs_of(ids: Sequence[Sequence[int]], segments: Sequence[Sequence[int]]) -> Inputs:
    """Ids and segments of B texts, padded, with the mask."""
    tokens, mask = padded(ids, PAD)
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": padded(segments)[0]}


class Questions(TextProblem, ABC):
    """A problem whose held-out questions are answered in batches, each from its row of the outputs."""

    held_out: Sequence[Any]

    @abstractmethod
    def inputs(self, questions: Sequence[Any]) -> Inputs:
        """What the model reads."""

    def reads(self, examples: Sequence[Any]) -> Inputs:
        return self.inputs(examples)

    @abstractmethod
    def answer(self, outputs: Mapping[str, NDArray[Any]], questions: Sequence[Any]) -> list[Any]:
        """An answer to each question of the batch, by the outputs."""

    def answers(self, run: RunFeeds) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(self.held_out), BATCH):
            some = self.held_out[start : start + BATCH]
            feeds = {name: np.asarray(tensor) for name, tensor in self.inputs(some).items()}
            found += self.answer(run(feeds), some)
        return found


def percents(answers: Sequence[Any], expected: Sequence[Any]) -> list[float]:
    """100 for each answer that is as expected, 0 for any other."""
    return [100.0 * bool(a == b) for a, b in zip(answers, expected, strict=True)]
