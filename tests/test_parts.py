"""The parts that a runtime calls, exported and compiled: together they give what the whole model gives in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

import onnxsmith
from onnxsmith.errors import BadUsage
from onnxsmith.models import registry
from onnxsmith.models.task import ExportTask, TensorSpec
from tests.command import Invoke
from tests.parity import LIMIT, batches, relative_rms

SLOW = pytest.mark.slow
SEQ2SEQ = [
    "t5-tiny",
    *(
        pytest.param(name, marks=SLOW)
        for name in ("transformer-tiny", "bart-tiny", "transformer-tiny-pre-norm", "marian-tiny", "t5-v1.1-tiny")
    ),
]
Arrays = dict[str, NDArray[Any]]


def compiled(name: str, task: str, folder: Path) -> Any:
    """The part after ``optimize``, verified and with every site fused."""
    report = onnxsmith.optimize(onnxsmith.export(name, folder / task, task=task), folder / f"{task}-fast")
    assert report.sites and [site for site in report.sites if site.status == "missed"] == []
    assert report.parity is not None and report.parity.fine and not report.parity.note
    return onnxsmith.load(folder / f"{task}-fast")


def part(name: str, task: str) -> ExportTask:
    return registry.build(name).for_task(task).task


def nothing(task: ExportTask, batch: int) -> Arrays:
    """A cache of no tokens."""
    specs = [spec for spec in task.inputs if "past_sequence" in spec.dims]
    sizes = {"batch": batch, "past_sequence": 0}
    return {s.name: np.zeros([d if isinstance(d, int) else sizes[d] for d in s.dims], np.float32) for s in specs}


def steps(model: Any, task: ExportTask, ids: NDArray[Any], mask: NDArray[Any], others: Arrays) -> torch.Tensor:
    """Logits [B, S, V] of ids and mask [B, S]: first five tokens, then one, then the rest."""
    cache, found = nothing(task, len(ids)), []
    for start, end in ((0, 5), (5, 6), (6, ids.shape[1])):
        results = model.run({"input_ids": ids[:, start:end], "attention_mask": mask[:, :end], **cache, **others})
        cache = {name: results[name.replace("past_key_values", "present")] for name in cache}
        found.append(results["logits"])
    return torch.from_numpy(np.concatenate(found, 1))


@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_a_decoder_with_its_cache(tmp_path: Path, name: str) -> None:
    model, task = compiled(name, "causal-lm-with-past", tmp_path), part(name, "causal-lm-with-past")
    module = registry.build(name).module
    for batch in batches(128):
        found = steps(model, task, batch.input_ids.numpy(), batch.attention_mask.numpy(), {})
        with torch.no_grad():
            expected = module(batch.input_ids, batch.attention_mask)
        counts = batch.attention_mask == 1
        assert relative_rms(found[counts], expected[counts]) < LIMIT


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_an_encoder_and_a_decoder_with_its_cache(tmp_path: Path, name: str) -> None:
    source = compiled(name, "encoder-with-present", tmp_path)
    model, task = compiled(name, "decoder-with-past", tmp_path), part(name, "decoder-with-past")
    module = registry.build(name).module
    for text, target in zip(batches(128), batches(128, lengths=(8, 3, 7)), strict=True):
        given = {"input_ids": text.input_ids.numpy(), "attention_mask": text.attention_mask.numpy()}
        cross = {name.replace("present", "past_key_values"): x for name, x in source.run(given).items()}
        others = {"encoder_attention_mask": given["attention_mask"], **cross}
        found = steps(model, task, target.input_ids.numpy(), target.attention_mask.numpy(), others)
        with torch.no_grad():
            expected = module(text.input_ids, text.attention_mask, target.input_ids, target.attention_mask)
        counts = target.attention_mask == 1
        assert relative_rms(found[counts], expected[counts]) < LIMIT


@pytest.mark.parametrize("name", ["transformer-tiny", *(pytest.param(n, marks=SLOW) for n in ("bart-tiny", "t5-tiny"))])
def test_an_encoder_and_a_decoder_without(tmp_path: Path, name: str) -> None:
    encoder, decoder = (compiled(name, task, tmp_path) for task in ("encoder", "decoder"))
    module = registry.build(name).module
    for text, target in zip(batches(128), batches(128, lengths=(8, 3, 7)), strict=True):
        mask = text.attention_mask.numpy()
        memory = encoder.run({"input_ids": text.input_ids.numpy(), "attention_mask": mask})["last_hidden_state"]
        own = {"input_ids": target.input_ids.numpy(), "attention_mask": target.attention_mask.numpy()}
        found = decoder.run(own | {"encoder_attention_mask": mask, "encoder_hidden_states": memory})["logits"]
        with torch.no_grad():
            expected = module(text.input_ids, text.attention_mask, target.input_ids, target.attention_mask)
        counts = target.attention_mask == 1
        assert relative_rms(torch.from_numpy(found)[counts], expected[counts]) < LIMIT


@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny", "t5-tiny", "bart-tiny", "transformer-tiny"])
def test_what_one_part_gives_another_takes(name: str) -> None:
    """Presents are the next step's past, of the same type and shape, and of the source's keys nothing is left over."""
    parts = registry.build(name).parts
    given = {spec for task in parts for spec in task.outputs if spec.name.startswith("present")}
    taken = {spec for task in parts for spec in task.inputs if spec.name.startswith("past_key_values")}

    def essence(spec: TensorSpec) -> tuple[object, ...]:
        return spec.name.partition(".")[2], spec.dtype, [d for d in spec.dims if isinstance(d, int)]

    assert given and sorted(map(essence, given)) == sorted(map(essence, taken))


def test_parts_share_weights_with_the_whole() -> None:
    whole = registry.build("t5-tiny")
    view = whole.for_task("decoder-with-past")
    assert view.module is not whole.module
    assert {p.data_ptr() for p in view.module.parameters()} == {p.data_ptr() for p in whole.module.parameters()}
    assert whole.for_task(None) is whole


def test_an_unknown_task_lists_the_known_ones(tmp_path: Path, invoke: Invoke) -> None:
    with pytest.raises(BadUsage, match="'generate'.*it has seq2seq, encoder, decoder,"):
        onnxsmith.export("t5-tiny", tmp_path / "out", task="generate")
    refused = invoke("export", "bert-tiny", "--task", "encoder", "-o", tmp_path / "out")
    assert (refused.code, "it has embed" in refused.err, (tmp_path / "out").exists()) == (2, True, False)


FACTORY = """
import torch
from torch import nn
from onnxsmith.models.task import ExportTask, TensorSpec

class Sums(nn.Module):
    def forward(self, x):
        return x.sum(1)

    def step(self, x, *past):
        return torch.cat((past[0], x), 1), x.sum(1)

def make():
    new, old = (TensorSpec(n, "float32", ("batch", n)) for n in ("new", "old"))
    both, total = TensorSpec("both", "float32", ("batch", "old + new")), TensorSpec("total", "float32", ("batch",))
    whole = ExportTask("whole", (new,), (total,))
    return Sums(), whole, ExportTask("part", (new, old), (both, total), method="step")
"""


def test_a_module_of_ones_own_has_parts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    exported = onnxsmith.export("sums:make", tmp_path / "part.onnx", task="part")
    graph = onnx.load(exported).graph
    (batch, length) = graph.output[0].type.tensor_type.shape.dim
    assert (batch.dim_param, length.dim_param) == ("batch", "old + new")
    for old in (0, 3):
        feeds = {"new": np.ones((2, 4), np.float32), "old": np.ones((2, old), np.float32)}
        assert onnxsmith.run(exported, feeds)["both"].shape == (2, old + 4)


def test_the_command_exports_a_part(tmp_path: Path, invoke: Invoke) -> None:
    assert invoke("export", "t5-tiny", "--task", "encoder", "-o", tmp_path / "encoder").code == 0
    result = onnxsmith.run(
        tmp_path / "encoder", {name: np.ones((2, 3), np.int64) for name in ("input_ids", "attention_mask")}
    )
    assert result["last_hidden_state"].shape == (2, 3, 32)
