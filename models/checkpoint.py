"""Reading a Hugging Face directory: config.json, weights, tokenizer, and what sentence-transformers adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onnxsmith.errors import BadInput
from onnxsmith.models.bert import SentenceEmbedder
from onnxsmith.models.families import Plan, find_family
from onnxsmith.models.task import ExportTask, pooled
from onnxsmith.models.weights import WEIGHTS, find_weights, load_weights, read_json


@dataclass(frozen=True)
class Checkpoint:
    """A model to export. ``tokenizer`` and ``weights`` are files, ``max_length`` limits a text, in tokens."""

    module: nn.Module
    task: ExportTask
    config: Mapping[str, Any]
    tokenizer: Path | None = None
    max_length: int | None = None
    weights: tuple[Path, ...] = ()


def load_checkpoint(folder: str | Path, *, architecture: str | None = None, allow_pickle: bool = False) -> Checkpoint:
    """Load a model of one of the known families, with the head that its config names; weights stay memory-mapped.

    Args:
        folder: config.json and model.safetensors or its shards; modules.json makes it a sentence-transformers model.
        architecture: refuse a checkpoint of another one; None takes any.
        allow_pickle: read pytorch_model.bin where there are no safetensors, and nothing but tensors from it.

    Raises:
        BadInput: no such folder, no or broken config.json or weights, another architecture, a pickle that was not
            allowed, a tensor that is missing, extra or of another shape, or a pooling that is not the mean.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no checkpoint folder {folder}; give a folder with config.json and {WEIGHTS}")
    config = read_json(folder / "config.json", dict)
    family = find_family(config.get("model_type"))
    if architecture not in (None, family.architecture):
        kind = config["model_type"]
        raise BadInput(f"{folder} holds a {kind}, which {family.architecture!r} reads; {architecture!r} was asked for")
    embeds = (folder / "modules.json").exists()
    with torch.device("meta"):
        plan = family.plan(config | {"architectures": None} if embeds else config)
    paths = find_weights(folder, allow_pickle=allow_pickle)
    load_weights(plan.module, paths, plan.names)
    module, task = _with_pooling(plan, folder) if embeds else (plan.module, plan.task)
    tokenizer = folder / "tokenizer.json"
    return Checkpoint(
        module=module.eval(),
        task=task,
        config=config,
        tokenizer=tokenizer if tokenizer.exists() else None,
        max_length=_max_length(folder, task.bounds.get("sequence")),
        weights=paths,
    )


def _with_pooling(plan: Plan, folder: Path) -> tuple[nn.Module, ExportTask]:
    """Wrap the encoder as ``modules.json`` says."""
    modules = read_json(folder / "modules.json", list)
    steps = [str(m.get("type")).rsplit(".", 1)[-1] if isinstance(m, dict) else repr(m) for m in modules]
    if steps[:2] != ["Transformer", "Pooling"] or steps[2:] not in ([], ["Normalize"]):
        raise BadInput(f"modules.json has the steps {steps}; Transformer, Pooling and Normalize can be read")
    pooling = read_json(folder / "1_Pooling" / "config.json", dict)
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on]
    if modes != ["pooling_mode_mean_tokens"]:
        raise BadInput(f"1_Pooling/config.json asks for {modes}; only the mean over tokens is supported")
    if plan.task.name != "features":
        raise BadInput(f"modules.json pools the hidden states of a {plan.task.name} model; only encoders can embed")
    return SentenceEmbedder(plan.module, normalize=steps[2:] == ["Normalize"]), pooled(plan.task)


def _max_length(folder: Path, positions: int | None) -> int | None:
    """How many tokens sentence-transformers cuts a text to; the model's positions when it does not say."""
    path = folder / "sentence_bert_config.json"
    limit = (read_json(path, dict) if path.exists() else {}).get("max_seq_length") or positions
    if limit is None:
        return None
    if type(limit) is not int or limit < 1:
        raise BadInput(f"{path} has max_seq_length = {limit!r}; a positive integer was expected")
    return min(limit, positions or limit)
