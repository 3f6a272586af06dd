"""Our tensors under the names of Hugging Face: transformers finds each one in its place, and so do we."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from onnxsmith.models.checkpoint import load_checkpoint  # noqa: E402
from onnxsmith.models.families import find_family  # noqa: E402
from onnxsmith.models.names import NameTable  # noqa: E402
from onnxsmith.models.spelling import spelled  # noqa: E402
from tests import test_bert_parity, test_decoder_parity, test_seq2seq  # noqa: E402

HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice", "ForQuestionAnswering")
MODELS: dict[str, Any] = {
    **{f"Bert{head}": lambda head=head: test_bert_parity.build("Bert", head) for head in HEADS},
    **{
        name: lambda name=name: test_decoder_parity.build(name) for name in ("gpt2", "llama", "qwen2", "llama, classes")
    },
    "bart": lambda: test_seq2seq.bart(),
    "marian": lambda: test_seq2seq.marian(),
    "t5": lambda: test_seq2seq.t5(test_seq2seq.T5),
    "t5 v1.1": lambda: test_seq2seq.t5(test_seq2seq.GATED),
}


@pytest.mark.parametrize("name", MODELS)
def test_transformers_finds_every_tensor(name: str, tmp_path: Path) -> None:
    theirs = MODELS[name]()
    theirs.save_pretrained(tmp_path)
    module = load_checkpoint(tmp_path).module
    table = find_family(theirs.config.model_type).plan(json.loads((tmp_path / "config.json").read_text())).names
    written = spelled(table, module.state_dict())
    save_file(
        {key: tensor.contiguous() for key, tensor in written.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    again, found = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    unused = {key for key in found["missing_keys"] if "pooler" not in key}  # which the bare encoder does not have
    assert not unused and not found["unexpected_keys"] and not found["mismatched_keys"]
    expected = theirs.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in again.state_dict().items() if "pooler" not in key)
    ours = load_checkpoint(tmp_path).module.state_dict()
    assert all(torch.equal(tensor, ours[key]) for key, tensor in module.state_dict().items())


def test_the_simplest_of_many_names() -> None:
    table = NameTable(
        {
            r"(?:model\.)?layers\.(\d+)\.(?:up|gate)(?:\.proj)?\.(weight|bias)": r"blocks.\1.up.\2",
            r"(?:model\.)?h\.(\d+)\.qkv": (r"blocks.\1.q", r"blocks.\1.k"),
            r"shared|tokens": "token",
            r"lm_head": "token",
        },
        transposed=(r"model\.h\.\d+\.qkv",),
    )
    ours = {"blocks.3.up.bias": torch.ones(2), "token": torch.zeros(3)}
    pair = {"blocks.0.q": torch.full((2, 3), 1.0), "blocks.0.k": torch.full((2, 3), 2.0)}
    found: dict[str, Tensor] = spelled(table, {**ours, **pair, "of no row": torch.ones(1)})
    assert sorted(found) == ["model.h.0.qkv", "model.layers.3.up.bias", "shared"]
    assert found["model.h.0.qkv"].tolist() == [[1, 1, 2, 2]] * 3
