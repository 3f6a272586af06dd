"""A source to compile: an artifact, or a folder of another tool with what its config.json and tokenizer say.

Those are read as a checkpoint's are, so that what is made of the folder has its texts, limits and settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.manifest import text_entry, text_files
from onnxsmith.errors import BadInput
from onnxsmith.models.generation import read_generation
from onnxsmith.models.json_file import read_json
from onnxsmith.models.text import check_vocabulary, read_text
from onnxsmith.passes.engine.values import dims
from onnxsmith.runtime.artifact import Artifact, open_artifact
from onnxsmith.runtime.exported import Exported

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_POSITIONS = ("max_position_embeddings", "n_positions")
_RELATIVE = "relative_attention_num_buckets"  # with which n_positions limits nothing


def open_source(path: str | Path) -> Artifact:
    """As ``open_artifact``; an export of another tool gets the manifest and sidecars that an export of ours has.

    Raises BadInput as that does, for a model that cannot be loaded, or for a config or tokenizer that cannot be read.
    """
    artifact = open_artifact(path)
    found = artifact.exported
    if found is None:
        return artifact
    config = read_json(found.home / _CONFIG, dict) if (found.home / _CONFIG).is_file() else {}
    vocabulary, text = _count(config, "vocab_size", found.home), read_text(found.home, config)
    if text is not None:
        check_vocabulary(text, vocabulary)
    limit = _limit(config, found.home)
    manifest = {
        **({"task": "seq2seq"} if found.encoder is not None else {}),
        "bounds": _bounds(load_model(artifact.model), limit),
        "max_length": limit,
        "vocab_size": vocabulary,
        **_generation(found, config),
        **text_entry(text),
    }
    return replace(artifact, manifest=manifest, texts=text_files(text))


def _count(config: Mapping[str, Any], key: str, home: Path) -> int | None:
    value = config.get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise BadInput(f"{home / _CONFIG} has {key} = {value!r}; a positive integer was expected")
    return value


def _limit(config: Mapping[str, Any], home: Path) -> int | None:
    """The most tokens of a text; None where positions are relative, or nothing is said."""
    if _RELATIVE in config:
        return None
    return next((count for key in _POSITIONS if (count := _count(config, key, home)) is not None), None)


def _bounds(model: ir.Model, limit: int | None) -> dict[str, int]:
    """The limit by the name of each length of a text, its ids' or its mask's."""
    given = [dims(v) or [] for v in model.graph.inputs if v.dtype == ir.DataType.INT64]
    names = [found[1] for found in given if len(found) == 2]
    return {name: limit for name in names if isinstance(name, str)} if limit is not None else {}


def _generation(found: Exported, config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model that generates."""
    if not found.is_decoder and not (found.home / _GENERATION).is_file():
        return {}
    return {"generation": read_generation(found.home, config)}
