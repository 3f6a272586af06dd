"""Verification notices: every rule is broken on purpose, must be named, rolled back, and leave a model that is fine."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from onnxsmith.compiler import pipeline, sites
from onnxsmith.compiler.closeness import check_closeness
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import EachPass, Unverifiable, check_whole, runnable
from onnxsmith.passes.canonicalize import canonicalize
from tests.planted import (
    ENCODER,
    FAULTS,
    Change,
    Fault,
    attribute,
    break_rule,
    broken,
    cases,
    constant,
    fires,
    inputs,
    load,
)
from tests.toy import encoder, parsed

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # rows of minus infinity


@pytest.mark.parametrize("graph", sorted({fault.graph for fault in FAULTS}))
def test_sound_rules_pass(graph: str) -> None:
    each = EachPass(cases(graph))
    outcome = pipeline.run(canonicalize(load(graph)), pipeline.passes(target("cpu", "fp32"), "fp32"), each)
    assert not outcome.undone
    assert {site.rule for site in outcome.applied} >= {f.rule for f in FAULTS if f.graph == graph}
    assert {e.rule for e in each.evidence} <= {site.rule for site in outcome.applied} | {"tidy"}
    assert all(e.worst.fine for e in check_whole(load(graph), outcome.model, cases(graph), {}))


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_whole_is_found_broken(fault: Fault) -> None:
    outcome = pipeline.run(canonicalize(load(fault.graph)), broken(fault))
    assert fires(outcome, fault.rule)
    evidence = check_whole(load(fault.graph), outcome.model, cases(fault.graph), {})
    assert not all(e.worst.fine for e in evidence)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_rule_is_named_and_rolled_back(fault: Fault) -> None:
    outcome = pipeline.run(canonicalize(load(fault.graph)), broken(fault), EachPass(cases(fault.graph)))
    assert {site.rule for site in outcome.undone} == {fault.rule}
    assert not fires(outcome, fault.rule)
    assert any(r.code == "parity" and r.rule == fault.rule for r in outcome.remarks)
    assert all(e.worst.fine for e in check_whole(load(fault.graph), outcome.model, cases(fault.graph), {}))


def test_a_site_that_was_rolled_back_says_so_and_by_how_much() -> None:
    fault, model = Fault("attention", "scale doubled", attribute("Attention", "scale", 1.0)), canonicalize(encoder())
    anchors = sites.find(model)
    outcome = pipeline.run(model, broken(fault), EachPass(cases(ENCODER)))
    (site,) = (s for s in sites.settle(anchors, outcome.model, outcome.remarks) if s.kind == "attention")
    told = r"parity: verification rolled it back: against the original's own, (\S+) times its RMS error \(at most 2\)"
    found = re.match(told, str(site.reason))
    assert site.status == "missed" and found is not None and float(found.group(1)) > 2


def test_a_rewrite_that_does_not_run_is_rolled_back_for_that() -> None:
    fault = Fault("attention", "mask not expanded", inputs("Expand", 0, 0))
    outcome = pipeline.run(canonicalize(encoder()), broken(fault), EachPass(cases(ENCODER)))
    (remark,) = (r for r in outcome.remarks if r.code == "parity")
    assert remark.reason.startswith("parity: verification rolled it back: no result") and "Softmax" in remark.node


def test_only_the_broken_rule_is_rolled_back() -> None:
    fault = next(f for f in FAULTS if f.rule == "gelu")
    outcome = pipeline.run(canonicalize(encoder()), broken(fault), EachPass(cases(ENCODER)))
    assert {site.rule for site in outcome.undone} == {"gelu"}
    assert fires(outcome, "layer-norm-bias") and fires(outcome, "attention-heads")


def int8_closeness(change: Change | None = None) -> float:
    """The smallest cosine of the encoder in int8 with a fault in its products."""
    steps = pipeline.passes(target("cpu", "int8"), "int8")
    if change is not None:
        place = [step.name for step in steps].index("int8")
        prepare, fault = steps[place].prepare, Fault("int8-product", "", change)
        assert prepare is not None
        steps[place] = replace(steps[place], prepare=lambda model: tuple(break_rule(r, fault) for r in prepare(model)))
    outcome = pipeline.run(canonicalize(encoder()), steps)
    assert fires(outcome, "int8-product")
    return min(c.smallest_cosine for c in check_closeness(encoder(), outcome.model, cases(ENCODER), {}))


def test_int8_stays_close() -> None:
    assert int8_closeness() > 0.99


@pytest.mark.parametrize(
    "change",
    [
        constant(lambda data: np.roll(data, 1) if data.ndim == 1 else data),
        constant(lambda data: np.roll(data, 1, axis=-1) if data.ndim == 2 else data),
        constant(lambda data: -data if data.ndim == 2 else data),
        inputs("MatMulIntegerToFloat", 0, 1, 2, 3, 4),
    ],
    ids=["scales rolled", "columns rolled", "weights negated", "bias dropped"],
)
def test_broken_int8_is_not_close(change: Change) -> None:
    assert int8_closeness(change) < 0.99


def test_a_lossy_pass_is_measured_and_kept() -> None:
    each = EachPass(cases(ENCODER))
    outcome = pipeline.run(canonicalize(encoder()), pipeline.passes(target("cpu", "int8"), "int8"), each)
    assert fires(outcome, "int8-product") and not outcome.undone
    assert any(e.rule == "int8-product" and not e.worst.fine for e in each.evidence)


def test_nothing_to_verify_on_is_said() -> None:
    with pytest.raises(Unverifiable, match="none of the verification inputs"):
        check_whole(encoder(), encoder(), [], {})


def test_a_fixed_batch_is_compared_whole() -> None:
    model = parsed('<ir_version: 10, opset_import: ["": 23]> g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }')
    found = runnable(model, {})
    assert found and {len(case.feeds["x"]) for case in found} == {1}
    assert all(e.worst.fine for e in check_whole(model, model, found, {}))
    assert [c.smallest_cosine for c in check_closeness(model, model, found, {})] == pytest.approx([1.0])


def test_a_sequence_cannot_be_compared() -> None:
    graph = "g (float[2,4] x) => (seq(float[2,4]) y) { y = SequenceConstruct(x) }"
    model = parsed('<ir_version: 10, opset_import: ["": 23]> ' + graph)
    with pytest.raises(Unverifiable, match="no tensor"):
        check_whole(model, model, runnable(model, {}), {})
