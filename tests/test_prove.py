"""The prover: sound rules are proved, broken ones refuted, and no rule is left without a proof."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from onnxsmith.compiler import pipeline
from onnxsmith.passes import lift
from onnxsmith.passes.optimize import attention_biases, distances, mask_floor, position_tables
from tests import golden
from tests.planted import ENCODER, FAULTS, Fault, break_rule
from tests.prove import field, run

CASES = [
    "attention/where-keep",
    "gelu/erf-orders",
    "norm/layer-affine",
    "scale/on-both",
    "einsum/project-heads",
    "rotary-cache/positions",
]
GOLDEN = [fault for fault in FAULTS if fault.graph != ENCODER]


@pytest.mark.parametrize("name", CASES)
def test_a_sound_case_is_proved(name: str) -> None:
    proof = run.prove(golden.CASES / f"{name}.txt", points=2)
    assert proof is not None and proof.verdict == "proved"


@pytest.mark.parametrize("fault", GOLDEN, ids=str)
def test_a_broken_rule_is_refuted(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = pipeline.passes

    def broken(*args: object, **options: object) -> list[pipeline.Pass]:
        steps = sound(*args, **options)  # type: ignore[arg-type]
        return [replace(step, rules=tuple(break_rule(rule, fault) for rule in step.rules)) for step in steps]

    monkeypatch.setattr(pipeline, "passes", broken)
    proof = run.prove(golden.CASES / f"{fault.graph}.txt", points=2)
    assert proof is not None and proof.verdict != "proved"


def test_every_exact_rule_has_a_proof() -> None:
    page = run.DOCS.read_text(encoding="utf-8")
    proved = {name for name, count in re.findall(r"^\| ([\w-]+) \| (\d+) \|", page, re.M) if int(count)}
    assert proved >= {
        rule.name
        for rule in [*lift.RULES, *attention_biases.RULES, *distances.RULES, *mask_floor.RULES, *position_tables.RULES]
    }


def test_exp_turns_sums_into_products() -> None:
    rng = np.random.default_rng(0)
    a, b = field.random((5,), rng), field.random((5,), rng)
    assert (a + b).exp() == a.exp() * b.exp()
    assert (a + b).exp() != a.exp() + b.exp()


def test_numbers_are_what_they_stand_for() -> None:
    root = field.exactly(np.float32([2**0.5]))
    assert root * root == field.exactly(np.float32([2]))
    third, twelfth = field.exactly(np.float32([1 / 3])), field.exactly(np.float32([1 / 12]))
    assert third * field.exactly(np.float32([0.25])) == twelfth
    assert root.inverse() * root == field.exactly(np.float32([1]))
