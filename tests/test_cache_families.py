"""A cache for decoders of the transformers library, exported plainly by both exporters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.cached import check_cached
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import runnable
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.canonicalize import canonicalize
from tests.coverage.decoders import FAMILIES
from tests.coverage.exporters import EXPORTERS
from tests.coverage.exporting import build, export, program
from tests.coverage.family import POSITIONS, Family

QUICK = ("gpt2",)
BOUNDS = {"sequence": POSITIONS}
CASES = [
    pytest.param(
        family, exporter, marks=() if family.name in QUICK else pytest.mark.slow, id=f"{family.name}-{exporter}"
    )
    for family in FAMILIES
    for exporter in ("dynamo-18", "torchscript-17")
]


@pytest.mark.parametrize(("family", "exporter"), CASES)
def test_in_steps_it_is_the_original(family: Family, exporter: str, tmp_path: Path) -> None:
    example = {name: np.ones((2, 7), np.int64) for name in ("input_ids", "attention_mask")}
    module = build(family, family.attention[-1])
    source = program(module, family, example) if exporter.startswith("dynamo") else module
    export(source, family, EXPORTERS[exporter], example, tmp_path / "model.onnx")
    original, where = load_model(tmp_path / "model.onnx"), target("cpu", "fp32")
    steps = pipeline.passes(where, "fp32", BOUNDS, cache="last")
    outcome = pipeline.run(canonicalize(load_model(tmp_path / "model.onnx")), steps)
    found = recorded(outcome.model)
    assert found is not None, [r.reason for r in outcome.remarks if r.rule == "kv-cache"]
    assert found.layout == "in-place"
    evidence = check_cached(original, outcome.model, runnable(original, BOUNDS), where.session)
    assert all(e.worst.fine for e in evidence), evidence
