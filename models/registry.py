"""Named configurations, built with random weights: for planning, tests and benchmarks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from onnxsmith.errors import BadInput
from onnxsmith.models.bart import BartConfig, BartGenerator
from onnxsmith.models.bert import Bert, BertConfig, SentenceEmbedder
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.gpt import Gpt, GptConfig
from onnxsmith.models.heads import LanguageModel
from onnxsmith.models.llama import Llama, LlamaConfig
from onnxsmith.models.parts import language_tasks, seq2seq_tasks
from onnxsmith.models.t5 import T5, T5Config
from onnxsmith.models.task import ExportTask, encoder_task, pooled
from onnxsmith.models.transformer import Transformer, TransformerConfig

_BERT = {
    "bert-base": BertConfig(),
    "bert-large": BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
    "bert-tiny": BertConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    ),
    "minilm-l6": BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
}


def _gpt(layers: int, hidden: int, heads: int, positions: int = 2048) -> GptConfig:
    return GptConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=positions
    )


# GPT-3: Brown et al. 2020, table 2.1. Two of its rows do not divide into their heads; these have the nearest that do.
_GPT = {
    "gpt2": _gpt(12, 768, 12, 1024),
    "gpt2-medium": _gpt(24, 1024, 16, 1024),
    "gpt2-large": _gpt(36, 1280, 20, 1024),
    "gpt2-xl": _gpt(48, 1600, 25, 1024),
    "gpt3-small": _gpt(12, 768, 12),
    "gpt3-medium": _gpt(24, 1024, 16),
    "gpt3-large": _gpt(24, 1536, 16),
    "gpt3-xl": _gpt(24, 2048, 16),
    "gpt3-2.7b": _gpt(32, 2560, 32),
    "gpt3-6.7b": _gpt(32, 4096, 32),
    "gpt3-13b": _gpt(40, 5120, 40),
    "gpt3-175b": _gpt(96, 12288, 96),
    "gpt-tiny": GptConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64
    ),
}
_LLAMA = {
    "llama2-7b": LlamaConfig(),
    "llama3-8b": LlamaConfig(
        vocab_size=128256,
        intermediate_size=14336,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_theta=500000.0,
    ),
    "mistral-7b": LlamaConfig(
        intermediate_size=14336, num_key_value_heads=8, max_position_embeddings=32768, window=4096
    ),
    "qwen2-0.5b": LlamaConfig(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=131072,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        qkv_bias=True,
        rope_theta=1000000.0,
    ),
    "smollm2-135m": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        rope_theta=100000.0,
    ),
    "llama-tiny": LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        num_key_value_heads=2,
    ),
}
_TRANSFORMER = {
    "transformer-base": TransformerConfig(),
    "transformer-big": TransformerConfig(d_model=1024, heads=16, d_ff=4096),
    "transformer-tiny": TransformerConfig(vocab_size=128, d_model=32, layers=1, heads=2, d_ff=64),
    "transformer-tiny-pre-norm": TransformerConfig(
        vocab_size=128, d_model=32, layers=1, heads=2, d_ff=64, pre_norm=True
    ),
}


def _bart(layers: int, width: int, heads: int, **changes: Any) -> BartConfig:
    sides = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    both = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()}
    return BartConfig(d_model=width, **both | changes)


_MARIAN = {
    "max_position_embeddings": 512,
    "activation_function": "swish",
    "scale_embedding": True,
    "positions": "sinusoidal",
    "interleaved": False,
    "embedding_norm": False,
}
_BART = {
    "bart-base": _bart(6, 768, 12),
    "bart-large": _bart(12, 1024, 16),
    "bart-tiny": _bart(1, 32, 2, vocab_size=128, max_position_embeddings=64),
    "marian-base": _bart(6, 512, 8, vocab_size=58101, **_MARIAN),
    "marian-tiny": _bart(1, 32, 2, vocab_size=128, **_MARIAN),
}
_V11: dict[str, Any] = {"gated": True, "activation": "gelu_new", "tied_head": False, "scaled_head": False}
_TINY_T5: dict[str, Any] = {
    "vocab_size": 128,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 1,
    "num_heads": 2,
}
_T5 = {
    "t5-small": T5Config(),
    "t5-base": T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12),
    "t5-large": T5Config(d_model=1024, d_ff=4096, num_layers=24, num_heads=16),
    "t5-tiny": T5Config(**_TINY_T5),
    "t5-v1.1-small": T5Config(d_ff=1024, num_layers=8, num_heads=6, **_V11),
    "t5-v1.1-base": T5Config(d_model=768, num_layers=12, num_heads=12, **_V11),
    "t5-v1.1-large": T5Config(d_model=1024, d_ff=2816, num_layers=24, num_heads=16, **_V11),
    "t5-v1.1-tiny": T5Config(**_TINY_T5, **_V11),
}
CONFIGS: dict[str, Any] = {**_BERT, **_GPT, **_LLAMA, **_TRANSFORMER, **_BART, **_T5}


_Model = tuple[nn.Module, tuple[ExportTask, ...]]


def _embedder(c: BertConfig) -> _Model:
    return SentenceEmbedder(Bert(c)), (pooled(encoder_task(c.hidden_size, c.length)),)


def _language_model(decoder: Gpt | Llama, *, tied: bool = True) -> _Model:
    c = decoder.config
    return LanguageModel(decoder, tied=tied), language_tasks(c.vocab_size, c.max_position_embeddings, c.cache)


_BUILDERS: dict[type, Callable[[Any], _Model]] = {
    BertConfig: _embedder,
    GptConfig: lambda c: _language_model(Gpt(c)),
    LlamaConfig: lambda c: _language_model(Llama(c), tied=c.tie_word_embeddings),
    TransformerConfig: lambda c: (Transformer(c), seq2seq_tasks(c.vocab_size, c.d_model, c.cache)),
    BartConfig: lambda c: (
        BartGenerator(c),
        seq2seq_tasks(c.vocab_size, c.d_model, c.cache, c.max_position_embeddings),
    ),
    T5Config: lambda c: (T5(c), seq2seq_tasks(c.vocab_size, c.d_model, c.cache)),
}


def build(name: str, seed: int = 0, *, structure: bool = False) -> Checkpoint:
    """A model of that size: a sentence embedder, or a language model.

    It has seeded random weights, or for a ``structure`` none: then it is on the meta device.
    Raises BadInput for an unknown name, and for weights that this machine's memory cannot hold.
    """
    module, tasks = sketch(name) if structure else _with_random_weights(name, seed)
    limit = tasks[0].bounds.get("sequence")
    return Checkpoint(module.eval(), tasks[0], vars(CONFIGS[name]), max_length=limit, parts=tasks[1:])


def _with_random_weights(name: str, seed: int) -> _Model:
    size, memory = 4 * sum(p.numel() for p in sketch(name)[0].parameters()), _memory()
    if memory is not None and size > memory:
        needs = f"{size / 1e9:.0f} GB for its weights, and this machine has {memory / 1e9:.0f} GB"
        raise BadInput(f"{name!r} needs {needs}; choose a smaller config, or export its structure alone")
    config = CONFIGS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _BUILDERS[type(config)](config)


def sketch(name: str) -> _Model:
    """The model on the meta device, without weights, and its tasks. Raises BadInput for an unknown name."""
    if name not in CONFIGS:
        raise BadInput(f"no model {name!r}; configs are {', '.join(CONFIGS)}, or give package.module:factory")
    config = CONFIGS[name]
    with torch.device("meta"):
        return _BUILDERS[type(config)](config)


def _memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
