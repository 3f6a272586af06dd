"""Structures: a graph without its weights is exported, optimized and explained, and nothing runs or reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import onnxsmith
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.report import OptimizeReport
from onnxsmith.errors import BadInput, BadUsage, CheckFailed
from onnxsmith.models import registry
from onnxsmith.passes.engine.absent import AbsentTensor
from tests.command import Invoke
from tests.tiny import write_bert

LIMIT = 2_000_000_000  # bytes of memory for a model whose weights take 700 GB


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama has real numbers among its weights: the frequencies of its positions."""
    return onnxsmith.export("llama-tiny", tmp_path_factory.mktemp("structure") / "plan", structure=True)


def sites(report: OptimizeReport) -> Counter[tuple[str, str, str]]:
    return Counter((site.kind, site.status, site.detail) for site in report.sites)


@pytest.mark.parametrize(
    "name", ["gpt-tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bart-tiny", "t5-v1.1-tiny"))]
)
def test_the_same_sites_are_fused_as_with_weights(tmp_path: Path, name: str) -> None:
    whole = onnxsmith.optimize(onnxsmith.export(name, tmp_path / "whole"), None, verify="off")
    plan = onnxsmith.export(name, tmp_path / "plan", structure=True)
    found = onnxsmith.optimize(plan, tmp_path / "fast")
    assert sites(found) == sites(whole)
    assert {site.status for site in found.sites} <= {"fused", "already fused"}
    assert str(found.parity) == "not verified: weights are absent"
    assert not [site for site in onnxsmith.explain(tmp_path / "fast").sites if site.status == "missed"]


class TestFiles:
    def test_weights_have_places_and_no_file(self, plan: Path) -> None:
        assert sorted(path.name for path in plan.iterdir()) == ["model.onnx", "onnxsmith.json"]
        manifest = json.loads((plan / "onnxsmith.json").read_text())
        assert (manifest["weights"], manifest["source"]["sha256"]) == ("absent", None)
        module, _ = registry.sketch("llama-tiny")
        absent = [v for v in load_model(plan).graph.initializers.values() if isinstance(v.const_value, AbsentTensor)]
        assert sorted(v.const_value.size for v in absent) == sorted(p.numel() for p in module.parameters())  # type: ignore[union-attr]

    def test_numbers_that_are_no_weights_stay(self, plan: Path) -> None:
        real = [v.const_value for v in load_model(plan).graph.initializers.values()]
        numbers = [t.numpy().tolist() for t in real if t is not None and not isinstance(t, AbsentTensor)]
        assert numbers == [pytest.approx([1.0, 0.1, 0.01, 0.001])]

    def test_an_optimized_one_is_a_structure_too(self, plan: Path, tmp_path: Path) -> None:
        onnxsmith.optimize(plan, tmp_path / "fast")
        assert sorted(path.name for path in (tmp_path / "fast").iterdir()) == ["model.onnx", "onnxsmith.json"]
        assert json.loads((tmp_path / "fast" / "onnxsmith.json").read_text())["weights"] == "absent"
        again = onnxsmith.optimize(tmp_path / "fast", None)
        assert len(again.sites) == 9 and again.rewrites == []

    def test_a_file_in_the_place_of_the_weights_is_not_read(self, plan: Path, tmp_path: Path) -> None:
        for path in plan.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "model.onnx.data").write_bytes(b"secret")
        weights = load_model(tmp_path).graph.initializers["decoder.token.weight"].const_value
        assert weights is not None
        with pytest.raises(BadInput, match="absent"):
            weights.numpy()

    def test_without_the_manifest_it_is_a_model_whose_weights_are_missing(self, plan: Path, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes((plan / "model.onnx").read_bytes())
        with pytest.raises(BadInput, match="external data file 'model.onnx.data' is missing"):
            load_model(tmp_path / "m.onnx")


class TestRefusals:
    def test_run_and_compare(self, plan: Path, invoke: Invoke) -> None:
        for command in (("run", plan, "--text", "a"), ("compare", plan, plan)):
            result = invoke(*command)
            assert result.code == 3 and "weights are absent" in result.err and result.err.count("\n") == 1

    def test_int8_and_strict(self, plan: Path, tmp_path: Path) -> None:
        for precision in ("int8", "int8-weights", "int4"):
            with pytest.raises(BadInput, match=f"{precision} needs them"):
                onnxsmith.optimize(plan, tmp_path / "out", precision=precision)
        with pytest.raises(CheckFailed, match="cannot verify: weights are absent"):
            onnxsmith.optimize(plan, tmp_path / "out", strict=True)
        assert not (tmp_path / "out").exists()

    def test_a_plain_file(self, plan: Path, tmp_path: Path) -> None:
        with pytest.raises(BadUsage, match="give a folder"):
            onnxsmith.export("gpt-tiny", tmp_path / "m.onnx", structure=True)
        with pytest.raises(BadUsage, match="give a folder"):
            onnxsmith.optimize(plan, tmp_path / "m.onnx")

    def test_what_needs_weights_to_export(self, tmp_path: Path) -> None:
        with pytest.raises(BadUsage, match="dynamo"):
            onnxsmith.export("gpt-tiny", tmp_path / "out", structure=True, exporter="torchscript")
        with pytest.raises(BadUsage, match="config name"):
            onnxsmith.export("own:factory", tmp_path / "out", structure=True)


def test_a_checkpoint_needs_no_more_than_its_config(tmp_path: Path, invoke: Invoke) -> None:
    folder = write_bert(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    result = invoke("export", "bert", "--checkpoint", folder, "--structure", "-o", tmp_path / "plan")
    assert result.code == 0
    assert onnxsmith.optimize(tmp_path / "plan", None).bytes_before > 0


@pytest.mark.slow
def test_gpt3_in_two_gigabytes(tmp_path: Path) -> None:
    plan, fast = str(tmp_path / "plan"), str(tmp_path / "fast")
    for call in (f"onnxsmith.export('gpt3-175b', {plan!r}, structure=True)", f"onnxsmith.optimize({plan!r}, {fast!r})"):
        code = f"import onnxsmith, resource; {call}; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert int(child.stdout) < LIMIT
    counts = Counter((site.kind, site.status == "missed") for site in onnxsmith.explain(fast).sites)
    assert counts == {("attention", False): 96, ("activation", False): 96, ("norm", False): 2 * 96 + 1}
