"""A tiny checkpoint as Hugging Face and sentence-transformers write them: weights, tokenizer, pooling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from tests.tiny import CONFIG, write_bert

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
STEPS = ("Transformer", "Pooling", "Normalize")


def write_checkpoint(
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    pooling: dict[str, Any] | None = None,
    steps: tuple[str, ...] = STEPS,
) -> Path:
    """A BERT with its tokenizer; with ``pooling``, a sentence-transformers model of these ``steps``."""
    write_bert(folder, config=config, tensors=tensors)
    _tokenizer().save(str(folder / "tokenizer.json"))
    if pooling is not None:
        modules = [{"type": f"sentence_transformers.models.{step}"} for step in steps]
        write_json(folder / "modules.json", modules)
        (folder / "1_Pooling").mkdir()
        write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def without(*keys: str) -> dict[str, Any]:
    """The tiny config without some of its keys."""
    return {key: value for key, value in CONFIG.items() if key not in keys}


def _tokenizer() -> Tokenizer:
    words = [*SPECIAL, *(f"w{i}" for i in range(CONFIG["vocab_size"] - len(SPECIAL)))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer
