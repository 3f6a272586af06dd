"""Models of the transformers library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.coverage.family import HEADS, HIDDEN, INNER, LAYERS, POSITIONS, SEVERAL, VOCABULARY

if TYPE_CHECKING:
    from torch import nn

BERT = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
}
LAYERED = {"num_hidden_layers": SEVERAL}
NO_POOLER = {"add_pooling_layer": False}


@dataclass(frozen=True)
class Library:
    """A model class of the library with a config; ``part`` is the submodule to take instead of the whole."""

    model: str
    config: str
    settings: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""

    def __call__(self, attention: str) -> nn.Module:
        import transformers

        config = getattr(transformers, self.config)(**{"vocab_size": VOCABULARY, **self.settings})
        config.use_cache = False
        kind = getattr(transformers, self.model)
        module: nn.Module = kind._from_config(config, attn_implementation=attention, **self.arguments)
        return module.get_submodule(self.part)
