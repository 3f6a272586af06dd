"""A model to train: built from the config of a recipe, with weights drawn by chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from onnxsmith.errors import BadInput
from onnxsmith.models.families import Plan, find_family
from onnxsmith.models.training.tables import nearest


class _Asked(Mapping[str, Any]):
    """A table that remembers what it was asked for."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._table = table
        self.keys_asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.keys_asked.add(key)
        return self._table[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def plan_model(model: Mapping[str, Any], known: Mapping[str, Any]) -> Plan:
    """The model of a recipe's [model], which is config.json without what is ``known``; torch's generator draws it.

    Raises:
        BadInput: the family cannot follow the config, or the config has a key that it does not read.
    """
    if both := sorted(model.keys() & known.keys()):
        raise BadInput(f"[model] has {both[0]}, which comes from the data; leave it out")
    config = _Asked({**model, **known})
    try:
        plan = find_family(config.get("model_type")).plan(config)
    except BadInput as e:
        raise BadInput(f"[model] is no config that can be built: {e}") from None
    for key in model:
        if key not in config.keys_asked:
            raise BadInput(f"[model] has an unknown key {key!r}{nearest(key, config.keys_asked - known.keys())}")
    return plan


def draw_normal(module: nn.Module, std: float) -> None:
    """Draw the weights of products and embeddings from N(0, std), with biases of 0, as BERT and GPT-2 do."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
