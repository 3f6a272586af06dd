"""Bisect: the rewrite that makes results wrong is found by halving the pipeline, and nothing is blamed without need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler import bisect as bisecting
from onnxsmith.compiler import pipeline
from onnxsmith.errors import BadInput
from tests.planted import FAULTS, Fault, broken, load
from tests.toy import encoder

PLANTED = [f for f in FAULTS if f.rule in ("layer-norm-bias", "gelu", "attention-heads", "silu", "view-scale")]


def saved(model: ir.Model, folder: Path) -> Path:
    ir.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("fault", PLANTED, ids=str)
def test_the_broken_rule_is_found(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = broken(fault)
    monkeypatch.setattr(pipeline, "passes", lambda *args, **options: steps)
    found = bisecting.bisect(saved(load(fault.graph), tmp_path))
    assert found.culprit is not None and found.culprit.rule == fault.rule
    assert found.culprit.origins and found.why and found.case
    assert found.judged <= found.cases + found.steps.bit_length() + 1


def test_a_transform_can_be_to_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(model: ir.Model) -> list[object]:
        node = next(n for n in model.graph if n.op_type == "Softmax" or n.op_type == "Attention")
        node.attributes["scale"] = ir.AttrFloat32("scale", 3.0)
        return []

    steps = [
        replace(step, transform=spoil) if step.name == "mask-meanings" else step
        for step in broken(Fault("", "", lambda op, node: None))
    ]
    monkeypatch.setattr(pipeline, "passes", lambda *args, **options: steps)
    found = bisecting.bisect(saved(encoder(), tmp_path))
    assert found.culprit is not None and found.culprit.rule is None and found.culprit.step == "mask-meanings"


def test_nothing_is_blamed_where_nothing_is_wrong(tmp_path: Path) -> None:
    found = bisecting.bisect(saved(encoder(), tmp_path))
    assert found.culprit is None and found.steps > 5 and found.cases > 3


def test_a_budget_judges_what_is_lossy(tmp_path: Path) -> None:
    path = saved(encoder(), tmp_path)
    assert bisecting.bisect(path, precision="int8").culprit is None  # what comes before is exact
    found = bisecting.bisect(path, precision="int8", budget="least-cosine=0.99999999")
    assert found.culprit is not None and found.culprit.rule == "int8-product" and "least-cosine" in found.why


def test_given_inputs_are_used(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing input input_ids"):
        bisecting.bisect(saved(encoder(), tmp_path), inputs={"no_such": np.zeros((1, 4))})
