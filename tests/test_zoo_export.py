"""Checkpoints of each family and head, exported and compiled: on ONNX Runtime they give what PyTorch gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import onnxsmith
from onnxsmith.models.checkpoint import load_checkpoint
from tests import test_bert_parity, test_decoder_parity
from tests.command import Invoke
from tests.parity import LIMIT, batches, relative_rms
from tests.tiny import write_bert

SLOW = pytest.mark.slow
BERTS = [
    ("Bert", "ForMaskedLM"),
    ("Bert", "ForMultipleChoice"),
    pytest.param("Bert", "ForQuestionAnswering", marks=SLOW),
    ("Roberta", "ForSequenceClassification"),
    pytest.param("DistilBert", "Model", marks=SLOW),
]
VARIANTS = ("mistral, window", "gpt2", "llama", "llama, own head size, biases", "qwen2")
DECODERS = [
    "gpt2, classes",
    *(pytest.param(name, marks=SLOW) for name in VARIANTS),
]


def check(architecture: str, folder: Path) -> None:
    found = load_checkpoint(folder)
    exported = onnxsmith.export(architecture, folder / "model", checkpoint=folder)
    report = onnxsmith.optimize(exported, folder / "fast")
    assert [site for site in report.sites if site.status == "missed"] == []
    assert report.parity is not None and report.parity.fine and not report.parity.note
    model = onnxsmith.load(folder / "fast")
    for batch in batches(99):
        tensors = [getattr(batch, spec.name) for spec in found.task.inputs]
        if "choices" in found.task.inputs[0].dims:
            tensors = [torch.stack((tensor, tensor.flip(0)), 1) for tensor in tensors]
        names = [spec.name for spec in found.task.inputs]
        results = model.run({name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})
        with torch.no_grad():
            expected = found.module(*tensors)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for spec, wanted in zip(found.task.outputs, expected, strict=True):
            result = results[spec.name]
            per_token = spec.dims[:2] == ("batch", "sequence")
            counts = batch.attention_mask.bool() if per_token else torch.ones(wanted.shape[0], dtype=torch.bool)
            assert relative_rms(torch.from_numpy(np.ascontiguousarray(result))[counts], wanted[counts]) < LIMIT


@pytest.mark.parametrize(("family", "head"), BERTS)
def test_encoders(tmp_path: Path, family: str, head: str) -> None:
    test_bert_parity.build(family, head).save_pretrained(tmp_path)
    check("bert", tmp_path)


@pytest.mark.parametrize("variant", DECODERS)
def test_decoders(tmp_path: Path, variant: str) -> None:
    test_decoder_parity.build(variant).save_pretrained(tmp_path, max_shard_size="20KB")
    check("gpt" if variant.startswith("gpt") else "llama", tmp_path)
    manifest = json.loads((tmp_path / "model" / "onnxsmith.json").read_text())
    assert manifest["source"]["sha256"].keys() == {path.name for path in tmp_path.glob("*.safetensors")}


@pytest.mark.parametrize("variant", DECODERS[1:])
def test_decoders_with_their_cache(tmp_path: Path, variant: str) -> None:
    test_decoder_parity.build(variant).save_pretrained(tmp_path)
    architecture = "gpt" if variant.startswith("gpt") else "llama"
    exported = onnxsmith.export(architecture, tmp_path / "m", checkpoint=tmp_path, task="causal-lm-with-past")
    report = onnxsmith.optimize(exported, tmp_path / "fast")
    assert report.sites and [site for site in report.sites if site.status == "missed"] == []
    assert report.parity is not None and report.parity.fine and not report.parity.note


def test_a_pickle_is_exported_when_that_is_allowed(tmp_path: Path, invoke: Invoke) -> None:
    folder = write_bert(tmp_path / "bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    command = ("export", "bert", "--checkpoint", folder, "-o", tmp_path / "out")
    refused = invoke(*command)
    assert (refused.code, "--allow-pickle" in refused.err, (tmp_path / "out").exists()) == (3, True, False)
    assert invoke(*command, "--allow-pickle").code == 0
    assert (tmp_path / "out" / "model.onnx").exists()
