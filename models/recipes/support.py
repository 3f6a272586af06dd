"""A real model, all-MiniLM-L6-v2, fine-tuned to sort messages: Reimers and Gurevych 2019, arXiv:1908.10084."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Generator, Tensor

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import load_checkpoint
from onnxsmith.models.objectives.losses import cross_entropy
from onnxsmith.models.packaged import find_checkpoint
from onnxsmith.models.recipes.bert_text import SPECIAL, Inputs, Questions, encoded, percents
from onnxsmith.models.recipes.messages import LABELS, Message, make_messages

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
_TABLES = ("max_position_embeddings", "type_vocab_size", "layer_norm_eps")


class Support(Questions):
    """Learns what a message wants, and is asked about wordings that it has not seen."""

    @dataclass(frozen=True)
    class Settings:
        """How many messages of each label there are to learn from, and to be asked about."""

        labelled: int = 50
        held_out: int = 150
        data_seed: int = 1

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        """``model`` must be empty: the checkpoint says what it is. Raises BadInput when that is not installed."""
        if model:
            raise BadInput(f"[model] has {min(model)}, which comes from the checkpoint; leave it out")
        found = load_checkpoint(find_checkpoint())
        sizes = {name: found.config[name] for name in (*_SIZES, *_TABLES)}
        kind = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
        labels = {str(i): label for i, label in enumerate(LABELS)}
        assert found.text is not None, "the checkpoint has a tokenizer"
        tokenizer = Tokenizer.from_str(found.text.tokenizer)
        tokenizer.no_padding()
        super().__init__({**kind, **sizes}, tokenizer, SPECIAL, id2label=labels)
        self.module.encoder.load_state_dict(found.module.encoder.state_dict())  # type: ignore[union-attr]
        self.examples, self.held_out = make_messages(settings.labelled, settings.held_out, settings.data_seed)

    def collate(self, examples: list[Message]) -> list[Message]:
        return examples

    def inputs(self, questions: Sequence[Message]) -> Inputs:
        return encoded(self.tokenizer, [text for text, _ in questions])

    def loss(self, batch: list[Message], generator: Generator) -> Tensor:
        labels = torch.tensor([LABELS.index(label) for _, label in batch])
        return cross_entropy(self.module(**self.inputs(batch)), labels)

    def answer(self, outputs: Mapping[str, NDArray[Any]], questions: Sequence[Message]) -> list[str]:
        return [LABELS[i] for i in outputs["logits"].argmax(-1)]

    def scores(self, answers: list[str]) -> list[float]:
        return percents(answers, [label for _, label in self.held_out])
