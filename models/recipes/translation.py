"""Translation between the two languages of ``languages``, with teacher forcing. Vaswani et al. 2017, section 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

from onnxsmith.models.recipes.languages import make_pairs
from onnxsmith.models.recipes.text_to_text import Pair, TextToText
from onnxsmith.models.recipes.words import PAD, SPECIAL, word_tokenizer

_LONGEST = 24  # tokens of a translation; the languages have none of more than 14


class Translation(TextToText):
    """Learns from pairs of sentences, and is asked for the translations of others."""

    @dataclass(frozen=True)
    class Settings:
        """How many pairs there are to learn from and to be asked, and the smoothing of the labels."""

        pairs: int = 20000
        held_out: int = 1000
        smoothing: float = 0.1
        data_seed: int = 1

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        texts = make_pairs(settings.pairs + settings.held_out, settings.data_seed)
        words = sorted({word for pair in texts for text in pair for word in text.split()})
        super().__init__(model, word_tokenizer(words), SPECIAL, decoder_start_token_id=PAD, max_length=_LONGEST)
        self.check_length(_LONGEST)
        self.smoothing = settings.smoothing
        pairs = [(self._ids(first), self._ids(second)) for first, second in texts]
        self.examples, self.held_out = pairs[: settings.pairs], pairs[settings.pairs :]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def loss(self, batch: list[Pair], generator: Generator) -> Tensor:
        return self.pair_loss(batch, self.smoothing)
