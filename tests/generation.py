"""Tiny models that generate: random ones of the transformers library beside our exports of them, made once a run."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import onnxsmith
from onnxsmith.models.families import ARCHITECTURES
from onnxsmith.passes.lower import candidates
from onnxsmith.runtime.model import LoadedModel
from tests import test_seq2seq
from tests.parity import randomized
from tests.test_decoder_parity import GPT2, LLAMA

PAD, BOS, EOS = 0, 1, 5
TEXT_VOCABULARY = 259  # every byte, and three special tokens
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
_TOKENS: dict[str, Any] = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_TARGET: dict[str, Any] = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
_LAYERS = {"decoder_layers": 2}  # the library's cache wants as many as the encoder has
_QUICK: Literal["torchscript"] = "torchscript"  # a twentieth of the time of the newer exporter
_TABLES = re.compile("wte|embed_tokens|shared|lm_head")
_ROOT = tempfile.TemporaryDirectory(prefix="onnxsmith-generation-")
transformers.utils.logging.disable_progress_bar()  # on stderr, where a test that makes a model may look

_MODELS: dict[str, Any] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**GPT2 | {"vocab_size": TEXT_VOCABULARY, "n_positions": 200}, **_TOKENS)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, **_TOKENS)),
    "mistral": lambda: transformers.MistralForCausalLM(
        transformers.MistralConfig(**LLAMA, sliding_window=3, **_TOKENS)
    ),
    "mistral-wide": lambda: transformers.MistralForCausalLM(  # heads that the kernel turns itself
        transformers.MistralConfig(**LLAMA, head_dim=16, sliding_window=5, **_TOKENS)
    ),
    "t5": lambda: test_seq2seq.t5(test_seq2seq.T5 | {"num_decoder_layers": 2, "d_kv": 8} | _TARGET),
    "bart": lambda: test_seq2seq.bart(
        **_LAYERS, **_TARGET, d_model=32, encoder_attention_heads=2, forced_eos_token_id=EOS
    ),
    "marian": lambda: test_seq2seq.marian(**_LAYERS, **_TARGET),
}
DECODERS, ENCODER_DECODERS = ("gpt2", "llama", "mistral"), ("t5", "bart", "marian")


@functools.cache
def folders(name: str) -> tuple[Path, Path]:
    """Where the library's checkpoint of that model is, and where our artifact."""
    theirs, ours = Path(_ROOT.name) / f"{name}-theirs", Path(_ROOT.name) / name
    model = varied(_MODELS[name]())
    model.save_pretrained(theirs)
    if name == "gpt2":
        _write_text(theirs)
    source = _architecture(theirs)
    if name in ENCODER_DECODERS:
        for part, task in (("encoder", "encoder-with-present"), ("decoder", "decoder-with-past")):
            onnxsmith.export(source, ours / part, checkpoint=theirs, task=task, exporter=_QUICK)
    else:
        onnxsmith.export(source, ours, checkpoint=theirs, task="causal-lm-with-past", exporter=_QUICK)
    return theirs, ours


def _architecture(checkpoint: Path) -> str:
    kind = json.loads((checkpoint / "config.json").read_text())["model_type"]
    return next(
        a for a in ARCHITECTURES if kind.startswith(a) or (a, kind) in (("bart", "marian"), ("llama", "mistral"))
    )


@functools.cache
def plain(name: str) -> Path:
    """Our export without a cache."""
    checkpoint, _ = folders(name)
    folder = Path(_ROOT.name) / f"{name}-plain"
    return onnxsmith.export(_architecture(checkpoint), folder, checkpoint=checkpoint, exporter=_QUICK)


@functools.cache
def compiled(name: str, target: str = "cpu", precision: str = "fp32") -> LoadedModel:
    """A model whose cache the compiler made, from an export without one; it runs on the CPU for whatever target."""
    fast = Path(_ROOT.name) / f"{name}-{target}-{precision}"
    options: dict[str, Any] = {"target": target, "precision": precision, "verify": "off"}  # which has its own tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "LEAST", 1)  # as of a vocabulary of a real size
        onnxsmith.optimize(plain(name), fast, cache=True, **options)
    return onnxsmith.load(fast, provider="cpu", threads=1)


@functools.cache
def ours(name: str) -> LoadedModel:
    return onnxsmith.load(folders(name)[1], threads=1)


@functools.cache
def theirs(name: str) -> Any:
    kind = transformers.AutoModelForSeq2SeqLM if name in ENCODER_DECODERS else transformers.AutoModelForCausalLM
    return kind.from_pretrained(folders(name)[0]).eval()


def varied(model: Any) -> Any:
    """Random weights, with matrices so large that what is generated does not soon repeat itself."""
    model = randomized(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter *= 3 if parameter.dim() == 2 and not _TABLES.search(name) else 1
    return model


def _write_text(folder: Path) -> None:
    """A tokenizer of bytes, so that random tokens are often half a character, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ("<pad>", "<s>", "</s>")
    words = {word: id for id, word in enumerate((*special[:2], *alphabet[:3], special[2], *alphabet[3:]))}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.add_special_tokens([AddedToken(token) for token in special])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)


def rows_of(lengths: Sequence[int], vocabulary: int = 60, seed: int = 0) -> list[list[int]]:
    """Random ids, none of them special."""
    random = np.random.default_rng(seed)
    return [random.integers(6, vocabulary, length).tolist() for length in lengths]


def padded(rows: Sequence[Sequence[int]], side: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask int64 [B, S]."""
    width = max(map(len, rows))
    ids, mask = np.full((len(rows), width), PAD), np.zeros((len(rows), width), np.int64)
    for row, tokens in enumerate(rows):
        span = slice(width - len(tokens), None) if side == "left" else slice(0, len(tokens))
        ids[row, span], mask[row, span] = tokens, 1
    return ids, mask


def reference(name: str, rows: Sequence[Sequence[int]], **settings: Any) -> list[tuple[int, ...]]:
    """What the library generates: new ids up to the first end, that end included."""
    side = "right" if name in ENCODER_DECODERS else "left"
    ids, mask = map(torch.from_numpy, padded(rows, side))
    with torch.no_grad():
        found = theirs(name).generate(input_ids=ids, attention_mask=mask, **settings)
    start = 1 if name in ENCODER_DECODERS else ids.shape[1]
    return [until_end(row) for row in found[:, start:].tolist()]


def until_end(row: list[int]) -> tuple[int, ...]:
    end = row.index(EOS) + 1 if EOS in row else len(row)
    return tuple(row[:end])


_IN_PLACE = """
<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
tiny (int64[batch, new] input_ids, int64[batch, all] attention_mask, int64[batch, new] position_ids,
      float[batch, 2, past, 8] k, float[batch, 2, past, 8] v) =>
     (float[batch, new, 60] logits, int64[batch, 1] next_token,
      float[batch, 2, p, 8] k_out, float[batch, 2, p, 8] v_out)
{
    word = Gather(table, input_ids)
    place = Gather(places, position_ids)
    x = Add(word, place)
    query = MatMul(x, wq)
    key = MatMul(x, wk)
    value = MatMul(x, wv)
    one = Constant<value_ints=[1]>()
    count = ReduceSum<keepdims=0>(attention_mask, one)
    minus = Sub(count, one)
    last = Cast<to=6>(minus)
    shape = Shape<start=1, end=2>(attention_mask)
    flat = Squeeze(shape)
    total = Cast<to=6>(flat)
    mixed, k_out, v_out = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(
        query, key, value, k, v, last, total)
    y = Add(x, mixed)
    logits = MatMul(y, head)
    new_shape = Shape<start=1, end=2>(input_ids)
    in_call = Min(count, new_shape)
    at = Sub(in_call, one)
    column = Unsqueeze(at, one)
    best = ArgMax<axis=-1, keepdims=0>(logits)
    next_token = GatherElements<axis=1>(best, column)
}
"""


def write_in_place(folder: Path, *, positions: int = 2000, **cache: Any) -> Path:
    """An artifact of one attention that appends to its cache in place; its end token is the 5 too."""
    model = onnx.parser.parse_model(_IN_PLACE)
    random = np.random.default_rng(7)
    shapes = {
        "table": (60, 32),
        "places": (positions, 32),
        "wq": (32, 32),
        "wk": (32, 16),
        "wv": (32, 16),
        "head": (32, 60),
    }
    for name, shape in shapes.items():
        weight = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    entry = {
        "layout": "in-place",
        "ids": "input_ids",
        "mask": "attention_mask",
        "positions": "position_ids",
        "past": ["k", "v"],
        "present": ["k_out", "v_out"],
        "max_positions": positions,
        "window": None,
        "logits": "logits",
        "last_only": False,
        "next_token": "next_token",
        "cross": None,
    }
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    manifest = {"format": 1, "task": "causal-lm", "vocab_size": 60, "generation": {"eos_token_id": EOS}}
    (folder / "onnxsmith.json").write_text(json.dumps(manifest | {"cache": entry | cache}))
    return folder
