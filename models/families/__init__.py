"""Checkpoint families: what each ``model_type`` of a ``config.json`` becomes.

To add one, write ``families/<name>.py`` with the table from the checkpoint's tensor names to ours and a function
``plan(config) -> Plan`` that reads the config and builds the module, and add its row below.
"""

from __future__ import annotations

from onnxsmith.errors import BadInput
from onnxsmith.models.families import bart, bert, gpt, llama, t5, transformer
from onnxsmith.models.families.plan import Family, Plan

FAMILIES: dict[str, Family] = {
    "bert": Family("bert", bert.plan),
    "roberta": Family("bert", bert.plan_roberta),
    "distilbert": Family("bert", bert.plan_distilbert),
    "gpt2": Family("gpt", gpt.plan),
    "llama": Family("llama", llama.plan),
    "mistral": Family("llama", llama.plan),
    "qwen2": Family("llama", llama.plan),
    "bart": Family("bart", bart.plan_bart),
    "marian": Family("bart", bart.plan_marian),
    "t5": Family("t5", t5.plan),
    "transformer": Family("transformer", transformer.plan),
}
ARCHITECTURES: tuple[str, ...] = tuple(dict.fromkeys(family.architecture for family in FAMILIES.values()))


def find_family(model_type: object) -> Family:
    """The family of a ``model_type``. Raises BadInput when there is none."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(map(repr, FAMILIES))
        raise BadInput(f"config.json is of model_type {model_type!r}; one of {known} can be read")
    return FAMILIES[model_type]


__all__ = ["ARCHITECTURES", "FAMILIES", "Family", "Plan", "find_family"]
