"""Equivalent spellings lift to the same graph: random ones, recorded ones, and the fuzzer's own parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler.session import run_model
from tests.fuzz import fuzz
from tests.fuzz.fuzz import Case, Step
from tests.fuzz.isomorphic import difference, evaluated
from tests.fuzz.seeds import SEEDS

FAST, ALL = 150, 2000
NEAR_FAST, NEAR_ALL = 50, 500
PER_TEST = 25
KEPT = sorted(fuzz.CASES.glob("*.json"))


def _fails(numbers: range) -> dict[int, str]:
    """The failing cases' numbers, each with its shrunk case: enough to repeat it."""
    drawn = {number: fuzz.draw(number) for number in numbers}
    return {number: str(fuzz.shrunk(case)) for number, (case, model) in drawn.items() if fuzz.failure(case, model)}


@pytest.mark.parametrize("first", range(0, FAST, PER_TEST))
def test_mutated_graphs_lift_to_the_graph_of_their_seed(first: int) -> None:
    assert _fails(range(first, first + PER_TEST)) == {}


def _mistaken(numbers: range) -> dict[int, str]:
    """The numbers of the near misses that are taken for their seed, each with its shrunk case."""
    drawn = {number: fuzz.draw_near_miss(number) for number in numbers}
    wrong = {number: case for number, (case, model) in drawn.items() if fuzz.mistaken(case, model)}
    return {number: str(fuzz.shrunk(case, fuzz.mistaken)) for number, case in wrong.items()}


@pytest.mark.parametrize("first", range(0, NEAR_FAST, PER_TEST))
def test_near_misses_do_not_lift_to_the_graph_of_their_seed(first: int) -> None:
    assert _mistaken(range(first, first + PER_TEST)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(NEAR_FAST, NEAR_ALL, PER_TEST))
def test_hundreds_of_near_misses_do_not_lift_to_the_graph_of_their_seed(first: int) -> None:
    assert _mistaken(range(first, first + PER_TEST)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FAST, ALL, PER_TEST))
def test_two_thousand_graphs_lift_to_the_graph_of_their_seed(first: int) -> None:
    assert _fails(range(first, first + PER_TEST)) == {}


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_what_failed_once(path: Path) -> None:
    assert fuzz.failure(Case.from_json(path.read_text())) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_every_seed_is_fused(seed: str) -> None:
    left = {n.op_type for n in fuzz.expected(seed)[1].model.graph}
    assert left.isdisjoint({"Softmax", "Sqrt", "Erf", "Tanh", "Einsum"})


@pytest.mark.parametrize("seed", SEEDS)
def test_every_seed_lifts_to_what_computes_the_same(seed: str) -> None:
    values, graph = fuzz.expected(seed)
    found = run_model(graph.model.clone())(fuzz.feeds(fuzz.seed_graph(seed)))
    for name, value in values.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


def test_a_number_tells_the_whole_case() -> None:
    case, _ = fuzz.draw(7)
    assert fuzz.draw(7)[0] == case == Case.from_json(case.to_json())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("attention-cross", "attention-boolean"),
        ("attention-padding", "attention-causal"),
        ("feed-forward-gelu", "feed-forward-gelu-tanh"),
        ("feed-forward-swiglu", "feed-forward-geglu"),
        ("layer-norm", "rms-norm"),
    ],
)
def test_different_graphs_differ(one: str, other: str) -> None:
    assert difference(fuzz.expected(one)[1], fuzz.expected(other)[1]) is not None


def test_another_constant_differs() -> None:
    _, graph = fuzz.expected("layer-norm")
    other = graph.model.clone()
    gain = next(v for name, v in other.graph.initializers.items() if "gain" in name)
    assert gain.const_value is not None
    gain.const_value = ir.tensor(gain.const_value.numpy() * np.float32(1.001))
    assert difference(graph, evaluated(other, {})) is not None


def test_another_mask_differs() -> None:
    feeds = fuzz.feeds(fuzz.seed_graph("attention-padding"))
    _, graph = fuzz.expected("attention-padding")
    turned = {**feeds, "mask": 1 - feeds["mask"]}
    assert difference(graph, evaluated(graph.model.clone(), turned)) is not None


def test_a_near_miss_that_is_fused_all_the_same_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Case("feed-forward-gelu", (Step("other-number", "root_two", 0),))
    assert fuzz.mistaken(wrong) is None
    monkeypatch.setattr(fuzz, "lifted", lambda model: fuzz.expected("feed-forward-gelu")[1].model.clone())
    assert fuzz.mistaken(wrong) == "y differs after lifting"


def test_a_near_miss_whose_values_are_the_same_is_told_by_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Case("layer-norm", (Step("other-number", "eps", 0),))
    assert fuzz.mistaken(wrong) is None
    monkeypatch.setattr(fuzz, "lifted", lambda model: fuzz.expected("layer-norm")[1].model.clone())
    assert fuzz.mistaken(wrong) == "lifts to the graph of its seed"


def test_shrinking_keeps_what_the_failure_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    guilty = Step("identity", "x", 1)
    monkeypatch.setattr(fuzz, "failure", lambda case, model=None: "broken" if guilty in case.steps else None)
    case = Case("layer-norm", (Step("renamed", "v1", 0), guilty, Step("dead-node", "v2", 0)))
    assert fuzz.shrunk(case) == Case("layer-norm", (guilty,))


def test_a_mutation_that_changes_results_is_not_blamed_on_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fuzz.seed_graph("layer-norm").clone()
    eps = model.graph.initializers["eps"]
    assert eps.const_value is not None
    eps.const_value = ir.tensor(eps.const_value.numpy() + np.float32(0.5))
    with pytest.raises(fuzz.Invalid, match="y differs: "):
        fuzz.failure(Case("layer-norm"), model)
