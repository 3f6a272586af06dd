"""Reading a Hugging Face directory: config.json, model.safetensors, and what sentence-transformers adds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.bert import Bert, BertConfig, SentenceEmbedder
from onnxsmith.models.names import BERT, NameTable
from onnxsmith.models.task import ExportTask, TensorSpec, encoder_task

WEIGHTS = "model.safetensors"
_PICKLES = ("pytorch_model.bin", "model.pt", "model.pth")


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to export. ``tokenizer`` is the tokenizer's own file, ``max_length`` its limit in tokens."""

    module: nn.Module
    task: ExportTask
    config: Mapping[str, Any]
    tokenizer: Path | None = None
    max_length: int | None = None
    weights: Path | None = None


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Load a BERT or a sentence-transformers model around one; weights stay memory-mapped until they are used.

    Raises:
        BadInput: no such folder, no or broken config.json or safetensors, another architecture, pickled weights,
            a tensor that is missing, extra or of another shape, or a pooling that is not the mean.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no checkpoint folder {folder}; give a folder with config.json and {WEIGHTS}")
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind != "bert":
        raise BadInput(f"{folder}/config.json is of architecture {kind!r}; only 'bert' can be read")
    bert_config = BertConfig.from_json(config)
    with torch.device("meta"):
        encoder = Bert(bert_config)
    load_weights(encoder, folder, BERT)
    module, task = _with_pooling(encoder, folder)
    tokenizer = folder / "tokenizer.json"
    limit = read_json(folder / "sentence_bert_config.json", optional=True).get("max_seq_length")
    length = min(limit or bert_config.max_position_embeddings, bert_config.max_position_embeddings)
    return Checkpoint(
        module.eval(), task, config, tokenizer if tokenizer.exists() else None, length, folder / WEIGHTS
    )


def _with_pooling(encoder: Bert, folder: Path) -> tuple[nn.Module, ExportTask]:
    """Wrap the encoder as ``modules.json`` says; a folder without one gives hidden states."""
    hidden = TensorSpec("last_hidden_state", "float32", ("batch", "sequence", encoder.config.hidden_size))
    positions = encoder.config.max_position_embeddings
    if not (folder / "modules.json").exists():
        return encoder, encoder_task("features", (hidden,), positions)
    steps = [str(m.get("type", "")).rsplit(".", 1)[-1] for m in _read(folder / "modules.json", list)]
    if steps[:2] != ["Transformer", "Pooling"] or steps[2:] not in ([], ["Normalize"]):
        raise BadInput(f"modules.json has the steps {steps}; Transformer, Pooling and Normalize can be read")
    pooling = read_json(folder / "1_Pooling" / "config.json")
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on]
    if modes != ["pooling_mode_mean_tokens"]:
        raise BadInput(f"1_Pooling/config.json asks for {modes}; only the mean over tokens is supported")
    embedding = TensorSpec("sentence_embedding", "float32", ("batch", encoder.config.hidden_size))
    module = SentenceEmbedder(encoder, normalize=steps[2:] == ["Normalize"])
    return module, encoder_task("embed", (hidden, embedding), positions)


def read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    """A JSON object from a file; an empty one when the file is absent and optional."""
    if optional and not path.exists():
        return {}
    return _read(path, dict)  # type: ignore[no-any-return]


def _read(path: Path, kind: type) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path.parent} has no {path.name}; is it a Hugging Face model folder?") from None
    except (OSError, ValueError) as e:
        raise BadInput(f"{path} is not readable JSON ({e}); fetch it again") from None
    if not isinstance(found, kind):
        raise BadInput(f"{path} holds a {type(found).__name__}; a JSON {kind.__name__} was expected")
    return found


def load_weights(module: nn.Module, folder: Path, table: NameTable) -> None:
    """Fill a module that lives on the meta device; every tensor of both sides must be accounted for."""
    path = folder / WEIGHTS
    if not path.exists():
        pickled = next((name for name in _PICKLES if (folder / name).exists()), None)
        hint = f"{pickled} is a pickle, which can run code: convert it to safetensors" if pickled else "fetch it"
        raise BadInput(f"{folder} has no {WEIGHTS}; {hint}")
    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            state = _matched(module.state_dict(), file, table)
    except (SafetensorError, OSError) as e:
        raise BadInput(f"{path} is damaged or cut short ({e}); fetch it again") from None
    module.load_state_dict(state, assign=True)


def _matched(expected: Mapping[str, Tensor], file: Any, table: NameTable) -> dict[str, Tensor]:
    names = table.ours(file.keys())
    missing = sorted(expected.keys() - names.keys())
    extra = sorted(names.keys() - expected.keys())
    if missing:
        raise BadInput(f"the checkpoint lacks {len(missing)} tensors, first {missing[0]!r}; its config asks for it")
    if extra:
        raise BadInput(f"the checkpoint has {len(extra)} tensors too many, first {names[extra[0]]!r}; check config.json")
    state = {}
    for ours, theirs in names.items():
        found, wanted = tuple(file.get_slice(theirs).get_shape()), tuple(expected[ours].shape)
        if found != wanted:
            raise BadInput(f"tensor {theirs!r} has shape {list(found)}; config.json asks for {list(wanted)}")
        state[ours] = file.get_tensor(theirs).to(expected[ours].dtype)
    return state
