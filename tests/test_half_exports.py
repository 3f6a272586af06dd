"""Exports in float16 and bfloat16, with their casts, are fused too, or say which kernel is missing."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.optimize import optimize
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.sites import Site
from onnxsmith.runtime.parity import cosine
from tests.coverage.batches import batches, counted
from tests.coverage.cell import Batch, check
from tests.coverage.exporters import EXPORTERS
from tests.coverage.exporting import build, export, program, torch_outputs
from tests.coverage.families import FAMILIES

# TorchScript widens the scores of sdpa, and so everything behind them: BERT's residual then adds two types.
WIDENED, ILL_TYPED = ("llama", "sdpa", "torchscript-17"), ("bert", "sdpa", "torchscript-17")
CELLS = [
    *((family, "eager", "torchscript-17") for family in ("bert", "gpt2", "llama", "t5")),
    ("bert", "sdpa", "dynamo-18"),
    pytest.param("llama", "sdpa", "dynamo-18", marks=pytest.mark.slow),
]
each_cell = pytest.mark.parametrize("family, attention, exporter", CELLS)


def exported(family: str, attention: str, exporter: str, dtype: torch.dtype, path: Path) -> torch.nn.Module:
    """Write the family's module in the type as ``path``, and give it."""
    spec, column = FAMILIES[family], EXPORTERS[exporter]
    module = build(spec, attention).to(dtype)
    _, example = next(iter(batches(spec)))
    export(program(module, spec, example) if column.dynamo else module, spec, column, example, path)
    return module


def check_fused(found: list[Site], family: str) -> None:
    """Attention and norms are all fused; an activation is not where its kernel is missing, which is the reason."""
    expected = FAMILIES[family].sites
    kinds = [site.kind for site in found]
    assert (kinds.count("attention"), kinds.count("norm")) == (expected.attention, expected.norm)
    missed = [site for site in found if site.status == "missed"]
    assert {site.kind for site in missed} <= {"activation"}
    assert all(site.reason is not None and site.reason.startswith("kernel: ") for site in missed)


@pytest.mark.parametrize("family, attention, exporter", [*CELLS, WIDENED])
def test_float16_is_fused_with_the_same_outputs(family: str, attention: str, exporter: str, tmp_path: Path) -> None:
    module = exported(family, attention, exporter, torch.float16, model := tmp_path / "model.onnx")
    spec, known = FAMILIES[family], []
    for name, given in batches(spec):
        outputs = torch_outputs(spec, module, given)
        known.append(Batch(name, given, outputs, outputs))
    cell = check(model, spec, known)
    check_fused(cell.sites, family)
    assert (cell.crash, cell.unequal, cell.baked) == ("", [], [])
    assert cell.compared


@pytest.mark.slow
def test_verified_as_usual_a_causal_model_stays_fused(tmp_path: Path) -> None:
    """Positions before the first token of a row see no key: what float16 makes of them is rounding."""
    exported("llama", "sdpa", "dynamo-18", torch.float16, model := tmp_path / "model.onnx")
    report = optimize(model, None)
    check_fused(report.sites, "llama")
    assert report.parity is not None and report.parity.evidence and report.parity.fine


@each_cell
def test_bfloat16_is_fused_though_it_does_not_run_here(
    family: str, attention: str, exporter: str, tmp_path: Path
) -> None:
    """ONNX Runtime has no bfloat16 kernels for the CPU: the report says so, and the graphs are compared in float64."""
    model, result, spec = tmp_path / "model.onnx", tmp_path / "result.onnx", FAMILIES[family]
    exported(family, attention, exporter, torch.bfloat16, model)
    report = optimize(model, result)
    onnx.checker.check_model(str(result), full_check=True)
    check_fused(report.sites, family)
    assert report.parity is not None and "ONNX Runtime refuses the original" in report.parity.note
    before, after = (Reference(load_model(path)) for path in (model, result))
    for _, given in batches(spec):
        truth, found = before.run(given), after.run(given)
        for output in spec.outputs:
            where = counted(spec, output, given)
            assert cosine(found[output.name][where], truth[output.name][where]).min() > 0.9999


def test_an_export_that_mixes_types_is_not_verified(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    exported(*ILL_TYPED, torch.float16, model)
    report = optimize(model, tmp_path / "result.onnx")
    assert report.parity is not None and "bound to different types" in report.parity.note
