"""What decoder-only families share: the language model, the classifier or the bare decoder, as the config names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxsmith.errors import BadInput
from onnxsmith.models.config import class_name, count_labels
from onnxsmith.models.families.plan import Plan
from onnxsmith.models.gpt import Gpt
from onnxsmith.models.heads import DecoderClassifier, LanguageModel
from onnxsmith.models.llama import Llama
from onnxsmith.models.names import NameTable
from onnxsmith.models.parts import language_tasks
from onnxsmith.models.task import decoder_task

Rows = Mapping[str, str | tuple[str, ...]]
_HEAD: Rows = {r"lm_head\.weight": "head.weight"}


def decoder_plan(config: Mapping[str, Any], decoder: Gpt | Llama, names: NameTable, *, tied: bool = True) -> Plan:
    """The module that ``architectures`` asks for, around ``decoder``, whose own tensors ``names`` are.

    A ``tied`` language model head is left out. Raises BadInput for a head that is not known.
    """
    sizes = decoder.config
    hidden, positions = sizes.hidden_size, sizes.max_position_embeddings
    kind = class_name(config)
    inner = {pattern: _inside(ours) for pattern, ours in names.rename.items()}
    head: Rows = {} if tied else _HEAD
    repeated = tuple(_HEAD) if tied else ()
    if kind.endswith("ForSequenceClassification"):
        labels = count_labels(config)
        rows = {**inner, r"score\.weight": "output.weight"}
        task = decoder_task("classify", labels, positions)
        return Plan(
            DecoderClassifier(decoder, hidden, labels), NameTable(rows, names.unused, names.transposed), (task,)
        )
    if kind.endswith(("LMHeadModel", "ForCausalLM")):
        table = NameTable({**inner, **head}, (*names.unused, *repeated), names.transposed)
        tasks = language_tasks(sizes.vocab_size, positions, sizes.cache)
        return Plan(LanguageModel(decoder, tied=tied), table, tasks)
    if kind and (not kind.endswith("Model") or "Head" in kind):
        raise BadInput(f"config.json asks for {kind}; the language model, the classifier and the bare model are known")
    table = NameTable(names.rename, (*names.unused, *_HEAD), names.transposed)
    return Plan(decoder, table, (decoder_task("features", hidden, positions),))


def _inside(ours: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return f"decoder.{ours}" if isinstance(ours, str) else tuple(f"decoder.{name}" for name in ours)
