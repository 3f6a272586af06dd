"""The TorchScript exporter: what it writes is optimized like what dynamo writes, at every length, with its weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import onnxsmith
from onnxsmith.compiler.artifact import write_artifact
from onnxsmith.compiler.exporters import to_onnx
from onnxsmith.compiler.load import load_model
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.models import registry
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.task import ExportTask, TensorSpec
from tests.command import Invoke


@pytest.mark.parametrize("name", ["bert-tiny", "gpt-tiny", "llama-tiny", "transformer-tiny", "bart-tiny", "t5-tiny"])
def test_optimized_with_parity_at_other_lengths(tmp_path: Path, name: str) -> None:
    exported = onnxsmith.export(name, tmp_path / "model", exporter="torchscript")
    report = onnxsmith.optimize(exported, tmp_path / "fast")
    assert report.sites and [site for site in report.sites if site.status == "missed"] == []
    assert report.parity is not None and report.parity.fine and not report.parity.note
    found = registry.build(name)
    feeds = {spec.name: np.ones((3, 11), np.int64) for spec in found.task.inputs}
    results = onnxsmith.run(tmp_path / "fast", feeds)
    with torch.no_grad():
        expected = found.module(*map(torch.from_numpy, feeds.values()))
    for spec, wanted in zip(found.task.outputs, expected if isinstance(expected, tuple) else (expected,), strict=True):
        np.testing.assert_allclose(results[spec.name], wanted.numpy(), rtol=0, atol=1e-5)


class Norm(torch.nn.Module):
    """float [rows, 4] -> the same, normalised."""

    def __init__(self, eps: float | None, affine: bool = True) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(4, eps, elementwise_affine=affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("a forward that talks")
        return self.norm(x)  # type: ignore[no-any-return]


def rows(dtype: str = "float32") -> ExportTask:
    return ExportTask("x", (TensorSpec("x", dtype, ("rows", 4)),), (TensorSpec("y", dtype, ("rows", 4)),))


class TestModel:
    @pytest.mark.parametrize("opset", [17, 18])
    @pytest.mark.parametrize(("eps", "affine"), [(1e-3, True), (None, True), (1e-3, False)])
    def test_rms_norm(self, tmp_path: Path, opset: int, eps: float | None, affine: bool) -> None:
        module = Norm(eps, affine)
        model = to_onnx(Checkpoint(module, rows(), {}), "torchscript", opset)
        write_artifact(tmp_path / "m.onnx", model, {})
        x = np.array([[1e-3, -2e-3, 3e-3, 0], [1, 2, 3, 4], [0, 0, 0, 0]], np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        (found,) = onnxsmith.run(tmp_path / "m.onnx", {"x": x}).values()
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_weights_are_shared(self) -> None:
        module = Norm(1e-3)
        model = to_onnx(Checkpoint(module, rows(), {}), "torchscript")
        (weights,) = [v.const_value for v in model.graph.initializers.values() if v.name == "norm.weight"]
        assert weights is not None and weights.raw is module.norm.weight

    def test_it_is_quiet(self, capfd: pytest.CaptureFixture[str]) -> None:
        to_onnx(Checkpoint(Norm(1e-3), rows(), {}), "torchscript")
        assert capfd.readouterr() == ("", "")

    def test_the_cause_of_a_failure(self, tmp_path: Path) -> None:
        class Odd(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.special.bessel_j0(x)

        with pytest.raises(BadInput, match="bessel_j0") as error:
            to_onnx(Checkpoint(Odd(), rows(), {}), "torchscript")
        assert "\n" not in str(error.value)


def test_the_command(tmp_path: Path, invoke: Invoke) -> None:
    assert invoke("export", "bert-tiny", "--exporter", "torchscript", "-o", tmp_path / "out").code == 0
    manifest = json.loads((tmp_path / "out" / "onnxsmith.json").read_text())
    assert (manifest["exporter"], manifest["opset"]) == ("torchscript", 17)
    graph = load_model(tmp_path / "out").graph
    assert {v.name: str(v.shape) for v in (*graph.inputs, *graph.outputs)} == {
        "input_ids": "[batch,sequence]",
        "attention_mask": "[batch,sequence]",
        "token_type_ids": "[batch,sequence]",
        "last_hidden_state": "[batch,sequence,32]",
        "sentence_embedding": "[batch,32]",
    }


@pytest.mark.parametrize("opset", [8, 21])
def test_opsets_out_of_its_range(tmp_path: Path, opset: int) -> None:
    with pytest.raises(BadUsage, match="9 to 20"):
        onnxsmith.export("bert-tiny", tmp_path / "out", exporter="torchscript", opset=opset)
