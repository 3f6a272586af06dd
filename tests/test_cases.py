"""Every golden case: the text, parity, idempotence, and that the result is valid ONNX."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxsmith.compiler.emulate import widened
from onnxsmith.compiler.pipeline import Outcome
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.passes import lift, lower
from onnxsmith.passes.optimize import attention_biases, distances, mask_floor, position_tables
from onnxsmith.passes.optimize.unpad import allowed_positions
from onnxsmith.passes.precision.formats import FORMATS
from onnxsmith.passes.quantize import int8, weight_only
from onnxsmith.runtime.parity import cosine, error_ratio
from tests import golden

PATHS = sorted(golden.CASES.glob("*/*.txt"))
REPAIRS = ("mask-shape", "rotary-cache")
LEAST_COSINE = {  # random weights and inputs
    "int4": 0.98,
    "int8": 0.999,
    "int8-weights": 0.9999,
    "fp16": 0.9999,
    "bf16": 0.999,
}
each_case = pytest.mark.parametrize("path", PATHS, ids=lambda p: f"{p.parent.name}/{p.stem}")


@functools.cache
def rewritten(path: Path) -> tuple[ir.Model, Outcome]:
    """The model before, and what the case's passes made of it."""
    case = golden.read(path)
    model = case.model()
    return model, golden.rewrite(model, case.steps)


@each_case
def test_golden(path: Path, update_cases: bool) -> None:
    case = golden.read(path)
    _, outcome = rewritten(path)
    after, remarks = golden.render(outcome.model), golden.render_remarks(outcome.remarks)
    if update_cases:
        golden.write(case, after, remarks)
    else:
        assert (after, remarks) == (case.after, case.remarks)


@each_case
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # rows of minus infinity
def test_parity(path: Path) -> None:
    before, outcome = rewritten(path)
    if golden.render(before) == golden.render(outcome.model):
        return  # some graphs that must stay as they are have no kernel anywhere
    feeds = golden.random_feeds(before)
    truth = Reference(before).run(feeds)
    baseline = _baseline(before, path, feeds, truth)
    narrowed = not FORMATS.keys().isdisjoint(golden.read(path).steps)
    result = run_model(widened(outcome.model) if narrowed else outcome.model)(feeds)
    assert list(result) == list(baseline)
    least = min((LEAST_COSINE[step] for step in golden.read(path).steps if step in LEAST_COSINE), default=None)
    for name, value in result.items():
        if least is not None:
            assert cosine(value, baseline[name]).min() > least
        else:
            assert error_ratio(value, baseline[name], truth[name], allowed_positions(outcome.model, feeds)).fine


def _baseline(before: ir.Model, path: Path, feeds: golden.Values, truth: golden.Values) -> golden.Values:
    """What the graph gives before; rounded truth for a graph that ONNX Runtime refuses until it is rewritten."""
    if path.parent.name in REPAIRS:
        return {name: value.astype(np.float32) for name, value in truth.items()}
    return run_model(before)(feeds)


@each_case
def test_idempotence(path: Path) -> None:
    _, outcome = rewritten(path)
    again = golden.rewrite(outcome.model, golden.read(path).steps)
    assert again.applied == []
    assert golden.render(again.model) == golden.render(outcome.model)


@each_case
def test_the_result_is_valid(path: Path) -> None:
    _, outcome = rewritten(path)
    onnx.checker.check_model(ir.to_proto(outcome.model), full_check=True)
    named = [v.name for n in outcome.model.graph.all_nodes() for v in n.outputs if v.name]
    assert len(named) == len(set(named))


def test_every_rule_is_in_a_case() -> None:
    kernels = target("cpu", "int8").kernels
    assert kernels is not None
    lossy = [
        *int8.rules(kernels, {}),
        *(r for form in weight_only.FORMATS["int4"] for r in weight_only.rules(kernels, form)),
    ]
    optimized = [*attention_biases.RULES, *distances.RULES, *mask_floor.RULES, *position_tables.RULES]
    known = {rule.name for rule in [*lift.RULES, *optimized, *lower.rules(kernels), *lossy]}
    assert known == {site.rule for path in PATHS for site in rewritten(path)[1].applied}
