"""Reading checkpoints: a Hugging Face directory, with what sentence-transformers adds, or a GGUF file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.models.bert import SentenceEmbedder
from onnxsmith.models.families import Family, Plan, find_family
from onnxsmith.models.families.llama_gguf import gguf_config, load_gguf
from onnxsmith.models.generation import read_generation
from onnxsmith.models.gguf_file import read_gguf
from onnxsmith.models.gguf_text import read_gguf_text
from onnxsmith.models.json_file import read_json
from onnxsmith.models.task import ExportTask, pooled
from onnxsmith.models.text import TextFiles, check_vocabulary, read_text
from onnxsmith.models.weights import WEIGHTS, find_weights, load_weights


@dataclass(frozen=True)
class Checkpoint:
    """A model to export. ``weights`` are files, ``max_length`` limits a text, in tokens.

    ``task`` is what the whole does, ``parts`` are tasks that can be exported instead of it. ``generation`` is what the
    checkpoint recommends for generating, under Hugging Face's names.
    """

    module: nn.Module
    task: ExportTask
    config: Mapping[str, Any]
    text: TextFiles | None = None
    max_length: int | None = None
    weights: tuple[Path, ...] = ()
    parts: tuple[ExportTask, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)

    def for_task(self, name: str | None) -> Checkpoint:
        """The part of the model that the task of this name runs; None is the whole. Raises BadUsage for an unknown one.

        Parts share their weights with the whole.
        """
        known = {task.name: task for task in (self.task, *self.parts)}
        if name is None:
            return self
        if name not in known:
            raise BadUsage(f"no task {name!r} for this model; it has {', '.join(known)}")
        part = copy.copy(self.module)
        part.forward = getattr(part, known[name].method)
        return replace(self, module=part, task=known[name])


def load_checkpoint(
    folder: str | Path, *, architecture: str | None = None, allow_pickle: bool = False, structure: bool = False
) -> Checkpoint:
    """Load a model of one of the known families, with the head that its config names; weights stay memory-mapped.

    Args:
        folder: config.json and model.safetensors or its shards; modules.json makes it a sentence-transformers model.
            Or a file that ends with .gguf, which has all of that in it.
        architecture: refuse a checkpoint of another one; None takes any.
        allow_pickle: read pytorch_model.bin where there are no safetensors, and nothing but tensors from it.
        structure: look for no weights; the module stays on the meta device.

    Raises:
        BadInput: no such folder or file, no or broken config.json or weights, another architecture, a pickle that was
            not allowed, a tensor that is missing, extra or of another shape, a pooling that is not the mean, or a
            tokenizer that cannot be read or has more tokens than the model.
    """
    folder = Path(folder)
    if folder.suffix == ".gguf" and not folder.is_dir():
        return _load_gguf(folder, architecture, structure)
    if not folder.is_dir():
        raise BadInput(f"no checkpoint folder {folder}; give a folder with config.json and {WEIGHTS}, or a .gguf file")
    config = read_json(folder / "config.json", dict)
    family = _family(config, architecture, folder)
    embeds = (folder / "modules.json").exists()
    with torch.device("meta"):
        plan = family.plan(config | {"architectures": None} if embeds else config)
    paths = () if structure else find_weights(folder, allow_pickle=allow_pickle)
    if not structure:
        load_weights(plan.module, paths, plan.names)
    module, task = _with_pooling(plan, folder) if embeds else (plan.module, plan.task)
    return Checkpoint(
        module=module.eval(),
        task=task,
        config=config,
        text=_text(folder, config),
        max_length=_max_length(folder, task.bounds.get("sequence")),
        weights=paths,
        parts=plan.tasks[1:],
        generation=read_generation(folder, config) if plan.tasks[1:] else {},  # only what generates has parts
    )


def _load_gguf(path: Path, architecture: str | None, structure: bool) -> Checkpoint:
    file = read_gguf(path)
    config = gguf_config(file)
    with torch.device("meta"):
        plan = _family(config, architecture, path).plan(config)
    if not structure:
        load_gguf(plan.module, file, config)
    text = read_gguf_text(file)
    if text is not None:
        check_vocabulary(text, config["vocab_size"])
    return Checkpoint(
        module=plan.module.eval(),
        task=plan.task,
        config=config,
        text=text,
        max_length=plan.task.bounds.get("sequence"),
        weights=() if structure else (path,),
        parts=plan.tasks[1:],
    )


def _family(config: Mapping[str, Any], architecture: str | None, source: Path) -> Family:
    family = find_family(config.get("model_type"))
    if architecture not in (None, family.architecture):
        kind = config["model_type"]
        raise BadInput(f"{source} holds a {kind}, which {family.architecture!r} reads; {architecture!r} was asked for")
    return family


def _text(folder: Path, config: Mapping[str, Any]) -> TextFiles | None:
    text = read_text(folder, config)
    if text is not None:
        check_vocabulary(text, config.get("vocab_size"))
    return text


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
