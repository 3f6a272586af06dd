"""A tiny sentence embedder as an artifact: a table of word vectors, the mean over the words that count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "run",
    "##ning",
    "fast",
    "slow",
)
WIDTH = 8
TEXTS = ("red cat", "green dog", "a dog running fast and fast and fast", "blue", "slow cat running")

_GRAPH = f"""
<ir_version: 10, opset_import: ["" : 18]>
embedder (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask)
    => (float[batch, sequence, {WIDTH}] hidden, float[batch, {WIDTH}] embeddings)
{{
    hidden = Gather(table, input_ids)
    last = Constant<value_ints=[-1]>()
    words = Constant<value_ints=[1]>()
    allowed = Cast<to=1>(attention_mask)
    weights = Unsqueeze(allowed, last)
    kept = Mul(hidden, weights)
    sum = ReduceSum<keepdims=0>(kept, words)
    count = ReduceSum<keepdims=0>(weights, words)
    embeddings = Div(sum, count)
}}
"""


def embedder_model(*, noise: float = 0.0, rename: dict[str, str] | None = None) -> onnx.ModelProto:
    """The model; ``noise`` scales a disturbance of its table, ``rename`` maps words of the graph's text."""
    text = _GRAPH
    for old, new in (rename or {}).items():
        text = text.replace(old, new)
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    table = rng.standard_normal((len(WORDS), WIDTH)) + noise * rng.standard_normal((len(WORDS), WIDTH))
    model.graph.initializer.append(onnx.numpy_helper.from_array(table.astype(np.float32), "table"))
    onnx.checker.check_model(model)
    return model


def write_embedder(folder: Path, model: onnx.ModelProto | None = None, **manifest: Any) -> Path:
    """An artifact of task "embed" with ``manifest`` entries on top of the usual ones."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes((model or embedder_model()).SerializeToString())
    entries = {"format": 1, "task": "embed", "tokenizer": "tokenizer.json", "bounds": {"sequence": 16}}
    (folder / "onnxsmith.json").write_text(json.dumps(entries | manifest))
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))],
    )
    tokenizer.enable_padding(length=64)  # as many published tokenizers do; the runtime pads by itself
    return tokenizer
