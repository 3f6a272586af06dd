"""Reading a Hugging Face directory: config.json, model.safetensors, and what sentence-transformers adds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.bert import Bert, BertConfig, SentenceEmbedder
from onnxsmith.models.names import BERT, NameTable
from onnxsmith.models.task import ExportTask, encoder_task

WEIGHTS = "model.safetensors"
Json = TypeVar("Json", dict[str, Any], list[Any])
_PICKLES = ("pytorch_model.bin", "model.pt", "model.pth")


@dataclass(frozen=True)
class Checkpoint:
    """A model to export. ``tokenizer`` and ``weights`` are files, ``max_length`` limits a text, in tokens."""

    module: nn.Module
    task: ExportTask
    config: Mapping[str, Any]
    tokenizer: Path | None = None
    max_length: int | None = None
    weights: Path | None = None


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Load a BERT or a sentence-transformers model around one; its weights stay memory-mapped.

    Raises:
        BadInput: no such folder, no or broken config.json or safetensors, another architecture, pickled
            weights, a tensor that is missing, extra or of another shape, or a pooling that is not the mean.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no checkpoint folder {folder}; give a folder with config.json and {WEIGHTS}")
    config = _read(folder / "config.json", dict)
    kind = config.get("model_type")
    if kind != "bert":
        raise BadInput(f"{folder}/config.json is of architecture {kind!r}; only 'bert' can be read")
    bert_config = BertConfig.from_json(config)
    with torch.device("meta"):
        encoder = Bert(bert_config)
    load_weights(encoder, folder, BERT)
    module, task = _with_pooling(encoder, folder)
    tokenizer = folder / "tokenizer.json"
    return Checkpoint(
        module=module.eval(),
        task=task,
        config=config,
        tokenizer=tokenizer if tokenizer.exists() else None,
        max_length=_max_length(folder, bert_config.max_position_embeddings),
        weights=folder / WEIGHTS,
    )


def _with_pooling(encoder: Bert, folder: Path) -> tuple[nn.Module, ExportTask]:
    """Wrap the encoder as ``modules.json`` says; a folder without one gives hidden states."""
    width, positions = encoder.config.hidden_size, encoder.config.max_position_embeddings
    if not (folder / "modules.json").exists():
        return encoder, encoder_task(width, positions, pooled=False)
    modules = _read(folder / "modules.json", list)
    steps = [str(m.get("type")).rsplit(".", 1)[-1] if isinstance(m, dict) else repr(m) for m in modules]
    if steps[:2] != ["Transformer", "Pooling"] or steps[2:] not in ([], ["Normalize"]):
        raise BadInput(f"modules.json has the steps {steps}; Transformer, Pooling and Normalize can be read")
    pooling = _read(folder / "1_Pooling" / "config.json", dict)
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on]
    if modes != ["pooling_mode_mean_tokens"]:
        raise BadInput(f"1_Pooling/config.json asks for {modes}; only the mean over tokens is supported")
    module = SentenceEmbedder(encoder, normalize=steps[2:] == ["Normalize"])
    return module, encoder_task(width, positions, pooled=True)


def _max_length(folder: Path, positions: int) -> int:
    """How many tokens sentence-transformers cuts a text to; the model's positions when it does not say."""
    path = folder / "sentence_bert_config.json"
    limit = (_read(path, dict) if path.exists() else {}).get("max_seq_length") or positions
    if type(limit) is not int or limit < 1:
        raise BadInput(f"{path} has max_seq_length = {limit!r}; a positive integer was expected")
    return min(limit, positions)


def _read(path: Path, kind: type[Json]) -> Json:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path.parent} has no {path.name}; is it a Hugging Face model folder?") from None
    except (OSError, ValueError, RecursionError) as e:
        raise BadInput(f"{path} is not readable JSON ({e}); fetch it again") from None
    if not isinstance(found, kind):
        raise BadInput(f"{path} holds a {type(found).__name__}; a JSON {kind.__name__} was expected")
    return found


def load_weights(module: nn.Module, folder: Path, table: NameTable) -> None:
    """Fill a module that lives on the meta device; every tensor of both sides must be accounted for."""
    path = folder / WEIGHTS
    if not path.exists():
        pickled = next((name for name in _PICKLES if (folder / name).exists()), None)
        hint = f"{pickled} is a pickle, which can run code: convert it to safetensors"
        raise BadInput(f"{folder} has no {WEIGHTS}; {hint if pickled else 'fetch it'}")
    try:
        with safe_open(path, framework="pt") as file:
            state = _matched(module.state_dict(), file, table)
    except (SafetensorError, OSError) as e:
        raise BadInput(f"{path} is damaged or cut short ({e}); fetch it again") from None
    module.load_state_dict(state, assign=True)


def _matched(expected: Mapping[str, Tensor], file: Any, table: NameTable) -> dict[str, Tensor]:
    names = table.ours(file.keys())
    missing = sorted(expected.keys() - names.keys())
    extra = sorted(names.keys() - expected.keys())
    if missing:
        raise BadInput(f"the checkpoint lacks {len(missing)} tensors, first {missing[0]!r}; check config.json")
    if extra:
        first = names[extra[0]]
        raise BadInput(f"the checkpoint has {len(extra)} tensors too many, first {first!r}; check config.json")
    state = {}
    for ours, theirs in names.items():
        found, wanted = tuple(file.get_slice(theirs).get_shape()), tuple(expected[ours].shape)
        if found != wanted:
            raise BadInput(f"tensor {theirs!r} has shape {list(found)}; config.json asks for {list(wanted)}")
        state[ours] = file.get_tensor(theirs).to(expected[ours].dtype)
    return state
