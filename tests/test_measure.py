"""Measuring on a clock of our own: nothing here depends on real time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxsmith.errors import BadUsage
from onnxsmith.runtime.measure import interleaved, median_interval


class FakeClock:
    """Time that passes only in the functions it makes."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.calls = ""
        self.rng = np.random.default_rng(seed)

    def __call__(self) -> float:
        return self.now

    def taking(self, name: str, seconds: float, noise: float = 0.05, drift: float = 0.0) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds * (1 + drift * len(self.calls)) * np.exp(noise * self.rng.standard_normal())
            self.calls += name

        return run


def test_a_planted_slowdown_is_found() -> None:
    clock = FakeClock()
    ratio = interleaved(clock.taking("a", 0.010), clock.taking("b", 0.020), clock=clock)
    assert ratio.low < 2 < ratio.high
    assert 1.8 < ratio.low < ratio.median < ratio.high < 2.2
    assert ratio.aa_low < 1 < ratio.aa_high < ratio.low
    assert (ratio.a_ms, ratio.b_ms) == (pytest.approx(10, rel=0.1), pytest.approx(20, rel=0.1))


@pytest.mark.parametrize("seed", range(5))
def test_no_difference_is_no_difference(seed: int) -> None:
    clock = FakeClock(seed)
    ratio = interleaved(clock.taking("a", 0.01), clock.taking("b", 0.01), clock=clock)
    assert ratio.low < 1 < ratio.high
    assert ratio.aa_low < 1 < ratio.aa_high


def test_drift_hits_both_alike() -> None:
    clock = FakeClock()
    runs = [clock.taking(name, 0.01, noise=0, drift=0.02) for name in "ab"]
    ratio = interleaved(runs[0], runs[1], clock=clock)
    assert ratio.low < 1 < ratio.high
    assert ratio.aa_low < 1 < ratio.aa_high


def test_the_order_is_a_b_b_a_after_a_warm_up() -> None:
    clock = FakeClock()
    interleaved(clock.taking("a", 1), clock.taking("b", 1), pairs=3, warmup=2, clock=clock)
    assert clock.calls == "abab" + "abba" + "abba"


def test_the_same_times_give_the_same_interval() -> None:
    ratios = []
    for _ in range(2):
        clock = FakeClock()
        ratios.append(interleaved(clock.taking("a", 1), clock.taking("b", 1), clock=clock))
    assert ratios[0] == ratios[1]


def test_a_constant_sample_has_no_width() -> None:
    assert median_interval([3.0] * 7) == (3.0, 3.0)


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [median_interval(rng.standard_normal(20), seed) for seed in range(200)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.9 <= covered <= 0.99


def test_no_pairs_is_wrong_usage() -> None:
    with pytest.raises(BadUsage, match="pairs must be at least 1, found 0"):
        interleaved(lambda: None, lambda: None, pairs=0)
