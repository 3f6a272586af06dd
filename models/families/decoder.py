"""What decoder-only families share: the language model, the classifier or the bare decoder, as the config names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from onnxsmith.errors import BadInput
from onnxsmith.models.config import class_name, count_labels
from onnxsmith.models.families.plan import Plan
from onnxsmith.models.heads import DecoderClassifier
from onnxsmith.models.names import NameTable
from onnxsmith.models.task import decoder_task

Decoder = TypeVar("Decoder", bound=nn.Module)
Rows = Mapping[str, str | tuple[str, ...]]


def decoder_plan(
    config: Mapping[str, Any],
    decoder: Decoder,
    language_model: Callable[[Decoder], nn.Module],
    names: NameTable,
    head: Rows,
    *,
    hidden: int,
    vocabulary: int,
    positions: int,
) -> Plan:
    """The module that ``architectures`` asks for, around ``decoder``.

    ``names`` are the decoder's own, ``head`` those of an untied language model head (empty: it is tied, and left out).
    Raises BadInput for a head that is not known.
    """
    kind = class_name(config)
    inner = {pattern: _inside(ours) for pattern, ours in names.rename.items()}
    tied = () if head else (r"lm_head\.weight",)
    if kind.endswith("ForSequenceClassification"):
        labels = count_labels(config)
        rows = {**inner, r"score\.weight": "output.weight"}
        task = decoder_task("classify", labels, positions)
        return Plan(DecoderClassifier(decoder, hidden, labels), NameTable(rows, names.unused, names.transposed), task)
    if kind.endswith(("LMHeadModel", "ForCausalLM")):
        table = NameTable({**inner, **head}, (*names.unused, *tied), names.transposed)
        return Plan(language_model(decoder), table, decoder_task("causal-lm", vocabulary, positions))
    if kind and (not kind.endswith("Model") or "Head" in kind):
        raise BadInput(f"config.json asks for {kind}; the language model, the classifier and the bare model are known")
    table = NameTable(names.rename, (*names.unused, r"lm_head\.weight"), names.transposed)
    return Plan(decoder, table, decoder_task("features", hidden, positions))


def _inside(ours: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return f"decoder.{ours}" if isinstance(ours, str) else tuple(f"decoder.{name}" for name in ours)
