"""A trained model as a Hugging Face folder, for ``load_checkpoint``, and for transformers where it has the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from tokenizers import Tokenizer

from onnxsmith.models.families import Plan
from onnxsmith.models.spelling import spelled
from onnxsmith.models.training.files import replacing
from onnxsmith.models.weights import WEIGHTS


def write_folder(
    folder: Path, plan: Plan, config: Mapping[str, Any], tokenizer: Tokenizer, special: Mapping[str, str]
) -> None:
    """Write config.json, model.safetensors, tokenizer.json and tokenizer_config.json, each whole.

    Args:
        config: what ``plan`` was made from.
        special: tokens by role, such as "eos".
    """
    with replacing(folder / WEIGHTS) as path:
        path.write_bytes(save(spelled(plan.names, plan.module.state_dict()), {"format": "pt"}))
    with replacing(folder / "tokenizer.json") as path:
        tokenizer.save(str(path))
    names = {f"{role}_token": token for role, token in special.items()}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    write_json(folder / "config.json", config)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, whole."""
    with replacing(path) as new:
        new.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
