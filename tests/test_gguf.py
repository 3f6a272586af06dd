"""GGUF files of Llama-like models: the numbers of transformers for the same weights, and a line for every bad file."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType

import onnxsmith
from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import load_checkpoint
from onnxsmith.models.families import find_family
from onnxsmith.models.families.llama_gguf import gguf_config, load_gguf
from onnxsmith.models.gguf_file import read_gguf
from tests.command import Invoke
from tests.gguf_files import write_file, write_gguf
from tests.parity import batches, check, randomized

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "rope_theta": 500.0,
}
LINEAR = {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10, "rope_theta": 500.0}
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # family, sizes, keys besides
    "llama": ("Llama", {}, {}),
    "llama, one key head, tied": ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}, {}),
    "llama, own head size, biases": ("Llama", {"head_dim": 12, "attention_bias": True, "mlp_bias": True}, {}),
    "llama, linear": ("Llama", {"rope_parameters": LINEAR}, {"llama.rope.scaling.factor": 3.0}),
    "llama, yarn": (
        "Llama",
        {"rope_parameters": YARN},
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 10,
        },
    ),
    "mistral, window": ("Mistral", {"sliding_window": 3}, {}),
    "qwen2": ("Qwen2", {}, {}),
    "qwen2, tied": ("Qwen2", {"tie_word_embeddings": True}, {}),
}


def build(variant: str, **sizes: Any) -> Any:
    family, own, _ = VARIANTS[variant]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **own, **sizes})
    return randomized(getattr(transformers, f"{family}ForCausalLM")(config))


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs(tmp_path: Path, variant: str) -> None:
    theirs = build(variant)
    found = load_checkpoint(write_gguf(tmp_path / "m.gguf", theirs, metadata=VARIANTS[variant][2]))
    assert found.max_length == 40 and found.text is None
    for batch in batches(99):
        check(found, theirs, batch)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K"])
@pytest.mark.parametrize("variant", ["llama", "qwen2"])
def test_types(tmp_path: Path, variant: str, kind: str) -> None:
    theirs = build(variant, **({"hidden_size": 256, "intermediate_size": 256} if kind == "Q4_K" else {}))
    before = theirs.lm_head.weight.clone()
    found = load_checkpoint(write_gguf(tmp_path / "m.gguf", theirs, kind=GGMLQuantizationType[kind]))
    assert not torch.equal(theirs.lm_head.weight, before)
    assert torch.equal(found.module.state_dict()["head.weight"], theirs.lm_head.weight)
    check(found, theirs, next(batches(99)))


def test_float32_stays_on_disk(tmp_path: Path) -> None:
    file = read_gguf(write_gguf(tmp_path / "m.gguf", build("llama")))
    config = gguf_config(file)
    with torch.device("meta"):
        module = find_family("llama").plan(config).module
    load_gguf(module, file, config)
    rows = module.get_parameter("decoder.layers.1.feed_forward.up.weight")
    assert rows.data_ptr() == file.tensor("blk.1.ffn_up.weight").data_ptr()
    before = file.path.read_bytes()
    with torch.no_grad():
        rows.zero_()
    assert file.path.read_bytes() == before


class TestExport:
    def test_artifact(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "m.gguf", build("llama"))
        folder = onnxsmith.export("llama", tmp_path / "out", checkpoint=path)
        manifest = json.loads((folder / "onnxsmith.json").read_text())
        assert manifest["source"] == {"name": "llama", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        assert manifest["task"] == "causal-lm" and manifest["tokenizer"] is None

    def test_structure(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "m.gguf", build("llama"))
        folder = onnxsmith.export("llama", tmp_path / "out", checkpoint=path, structure=True)
        assert json.loads((folder / "onnxsmith.json").read_text())["source"]["sha256"] is None

    def test_a_bad_file_leaves_nothing(self, tmp_path: Path, invoke: Invoke) -> None:
        path = write_gguf(tmp_path / "m.gguf", build("llama"), tensors={"output_norm.weight": None})
        result = invoke("export", "llama", "--checkpoint", path, "-o", tmp_path / "out")
        assert result.code == 3 and "'output_norm.weight'" in result.err
        assert [entry.name for entry in tmp_path.iterdir()] == ["m.gguf"]


def refused(path: Path, mention: str, architecture: str | None = None) -> None:
    with pytest.raises(BadInput, match=mention) as error:
        load_checkpoint(path, architecture=architecture)
    message = str(error.value)
    assert "\n" not in message and path.name in message and "config.json" not in message


@pytest.mark.parametrize(
    ("metadata", "mention"),
    [
        ({"general.architecture": "mamba"}, "architecture 'mamba'"),
        ({"llama.block_count": None}, "lacks llama.block_count"),
        ({"llama.block_count": 0}, "lacks llama.block_count"),
        ({"llama.vocab_size": None}, "lacks llama.vocab_size"),
        ({"llama.attention.head_count": [4, 4]}, r"llama.attention.head_count = \[4, 4\]"),
        ({"llama.embedding_length": "32"}, "llama.embedding_length = '32'"),
        ({"llama.rope.freq_base": -1.0}, "llama.rope.freq_base = -1.0"),
        ({"llama.expert_count": 8}, "the key 'llama.expert_count'"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count = 4"),
        ({"llama.attention.value_length": 16}, "llama.attention.value_length = 16"),
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type = 'longrope'"),
        ({"llama.rope.scaling.type": "linear"}, "without a factor"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"llama.block_count": 10**9}, r"lacks tensor 'blk.999999999.attn_norm.weight'"),
        ({"llama.block_count": 1}, r"has 9 tensors too many, first 'blk.1.attn_k.weight'"),
        ({"llama.feed_forward_length": 48}, r"'blk.0.ffn_gate.weight' of shape \[64, 32\]; .* \[48, 32\]"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer of kind 'bert'"),
    ],
)
def test_metadata_that_cannot_be_followed(tmp_path: Path, metadata: dict[str, Any], mention: str) -> None:
    refused(write_gguf(tmp_path / "m.gguf", build("llama"), metadata=metadata), mention)


@pytest.mark.parametrize(
    ("tensors", "mention"),
    [
        ({"blk.1.ffn_up.weight": None}, "lacks 1 tensors, first 'blk.1.ffn_up.weight'"),
        ({"blk.0.attn_q.bias": np.zeros(32, np.float32)}, "1 tensors too many, first 'blk.0.attn_q.bias'"),
        ({"token_embd.weight": np.zeros((98, 32), np.float32)}, r"'token_embd.weight' of shape \[98, 32\]"),
        ({"blk.0.attn_q.weight": np.zeros((30, 32), np.float32)}, r"'blk.0.attn_q.weight' of shape \[30, 32\]"),
        ({"output_norm.weight": np.zeros(32, np.int8)}, "'output_norm.weight' of type I8"),
        ({"rope_freqs.weight": np.ones(4, np.float32)}, "rope_freqs.weight"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, tensors: dict[str, Any], mention: str) -> None:
    refused(write_gguf(tmp_path / "m.gguf", build("llama"), tensors=tensors), mention)


def test_another_architecture(tmp_path: Path) -> None:
    refused(write_gguf(tmp_path / "m.gguf", build("llama")), "holds a llama", "bert")


class TestDamage:
    def test_cut_short_anywhere(self, tmp_path: Path) -> None:
        whole = write_gguf(tmp_path / "whole.gguf", build("llama")).read_bytes()
        path = tmp_path / "m.gguf"
        for length in [*range(0, 2000, 37), *range(2000, len(whole), 5003), len(whole) - 1]:
            path.write_bytes(whole[:length])
            refused(path, "no GGUF file, damaged or cut short")

    @pytest.mark.parametrize("start", [b"PK\x03\x04", b"GGUF\x01\x00\x00\x00", b"GGUF\x63\x00\x00\x00"])
    def test_another_format_or_version(self, tmp_path: Path, start: bytes) -> None:
        path = tmp_path / "m.gguf"
        path.write_bytes(start + bytes(100))
        refused(path, "no GGUF file")

    def test_missing(self, tmp_path: Path) -> None:
        refused(tmp_path / "m.gguf", "No such file")

    def test_a_list_longer_than_the_file(self, tmp_path: Path) -> None:
        path = write_file(tmp_path / "m.gguf", {"general.architecture": "llama", "list": [7, 7, 7]})
        found, wanted = struct.pack("<Qiii", 3, 7, 7, 7), struct.pack("<Qiii", 2**62, 7, 7, 7)
        assert found in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(found, wanted))
        refused(path, "no GGUF file, damaged or cut short")

    def test_no_utf8(self, tmp_path: Path) -> None:
        path = write_file(tmp_path / "m.gguf", {"general.architecture": "llama", "name": "plain"}, {})
        path.write_bytes(path.read_bytes().replace(b"plain", b"\xff\xfe\xff\xfe\xff"))
        refused(path, "no GGUF file")
