"""Telling difference from chance, on simulated times: no test here looks at a clock."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxsmith.compiler.compare.accuracy import Accuracy
from onnxsmith.compiler.compare.latency import Speed, race, shown, together
from onnxsmith.compiler.compare.pareto import Point, pareto
from onnxsmith.compiler.compare.profile import Roofs, operators
from onnxsmith.compiler.compare.report import Variant
from onnxsmith.compiler.compare.structure import Structure
from onnxsmith.runtime.measure import ratio_of

TRIALS, PAIRS = 100, 40  # pairs are those of the command line


def variant(name: str, ms: float, error: float, size: int) -> Variant:
    figures = Accuracy("y", "case", 1, True, False, 1.0, 1.0, error, 1.0)
    built = Structure(size, 1, {}, {}, {})
    return Variant(name, structure=built, accuracy=(figures,), speeds=(Speed("1x1", ms, ms, None, (ms,)),))


VARIANTS = (variant("slow", 3.0, 1e-7, 100), variant("fast", 1.0, 1e-7, 100), variant("small", 2.0, 1e-3, 20))


def blocks(rng: np.random.Generator, slowdown: float) -> NDArray[np.float64]:
    """Seconds of A B B A as a shared machine gives them: 4% noise, one run of twenty late, and a drift of 10%."""
    n = PAIRS // 2
    noise = np.exp(0.04 * rng.standard_normal((n, 4)))
    late = 1 + 0.5 * (rng.random((n, 4)) < 0.05)
    drift = np.linspace(1, 1.1, 4 * n).reshape(n, 4)
    return 0.01 * noise * late * drift * np.array([1, slowdown, slowdown, 1])


def claims(slowdown: float) -> int:
    rng = np.random.default_rng(7)
    return sum(ratio_of(blocks(rng, slowdown), seed).differs for seed in range(TRIALS))


def test_one_thing_against_itself_is_hardly_ever_called_different() -> None:
    assert claims(1.0) <= 10


def test_a_slowdown_of_a_twentieth_is_found() -> None:
    assert claims(1.05) >= 90


def test_an_a_a_band_holds_chance() -> None:
    rng = np.random.default_rng(3)
    found = [ratio_of(blocks(rng, 1.3), seed) for seed in range(TRIALS)]
    assert sum(r.aa_low <= 1 <= r.aa_high for r in found) >= 85
    assert all(not r.aa_low <= r.median <= r.aa_high for r in found)


def test_a_race_counts_every_run_of_both() -> None:
    calls: list[str] = []
    a, b = race(lambda: calls.append("a"), lambda: calls.append("b"), 4, "1x2")
    assert calls.count("a") == calls.count("b") > 4
    assert (len(a.times_ms), len(b.times_ms), a.ratio, a.at) == (4, 4, None, "1x2")
    assert b.ratio is not None and b.median_ms <= b.p90_ms
    both = together([a, a])
    assert (len(both.times_ms), both.median_ms) == (8, pytest.approx(a.median_ms))


def test_shapes_are_told_once() -> None:
    array = np.zeros((1, 7))
    assert shown({"a": array, "b": array, "c": np.zeros(3)}) == "1x7, 3"


def test_what_is_nowhere_better_is_dominated() -> None:
    points = {p.variant: p for p in pareto(VARIANTS)}
    assert {name for name, p in points.items() if p.by is None} == {"fast", "small"}
    assert points["slow"].by == "fast"


def test_a_tie_dominates_nobody() -> None:
    one, other = Point("a", "1x1", 1.0, 0.1, 5), Point("b", "1x1", 1.0, 0.1, 5)
    assert not one.beats(other) and not other.beats(one)
    assert Point("c", "1x1", 0.5, None, None).beats(one)


def test_operators_are_summed_over_warm_runs() -> None:
    args = {"op_name": "MatMul", "activation_size": "8", "parameter_size": "16", "output_size": "24"}
    shapes = {"input_type_shape": [{"float": [2, 3]}, {"float": [3, 5]}], "output_type_shape": [{"float": [2, 5]}]}
    event = {"cat": "Node", "name": "product_kernel_time", "args": args | shapes}
    events = [{**event, "dur": dur} for dur in (9000, 9000, 9000, 100, 300, 200)]
    other = {"cat": "Node", "name": "sum_kernel_time", "dur": 500, "args": {"op_name": "Add"}}
    found = operators([*events, *[other] * 6, {"cat": "Session", "name": "x", "dur": 1}], warm=3)
    assert [(o.operator, o.nodes, o.ms) for o in found] == [("Add", 1, 0.5), ("MatMul", 1, 0.2)]
    assert (found[1].gflop, found[1].megabytes) == (pytest.approx(60e-9), pytest.approx(48e-6))
    variant = Variant("x", operators=found)
    assert variant.share_of_roof(Roofs(1.0, 1.0)) == pytest.approx(60e-9 / 0.7e-3)


def test_attention_counts_both_products() -> None:
    q = [2, 4, 8]  # B, S, H D: 2 B S S HD for the scores, and as much for the values
    args = {"op_name": "Attention", "input_type_shape": [{"float": q}] * 3, "output_type_shape": [{"float": q}]}
    (found,) = operators([{"cat": "Node", "name": "a_kernel_time", "dur": 1, "args": args}])
    assert found.gflop == pytest.approx(2 * 2 * (2 * 4 * 4 * 8) / 1e9)
