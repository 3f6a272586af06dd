"""Comparing the speed of two functions on a noisy machine: interleaved runs, ratios, bootstrap intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadUsage

Run = Callable[[], object]
Clock = Callable[[], float]

_RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """Time of B over time of A: below 1, B is faster.

    ``median`` is that of the pairwise ratios and ``low``..``high`` its bootstrap 95% interval.
    ``aa_low``..``aa_high`` is the same interval for A against itself: what the machine's noise alone does.
    ``a_ms`` and ``b_ms`` are the median times.
    """

    median: float
    low: float
    high: float
    aa_low: float
    aa_high: float
    a_ms: float
    b_ms: float

    @property
    def differs(self) -> bool:
        """Whether the times differ by more than chance explains: claimed wrongly in about 5 of 100 comparisons."""
        return self.low > 1 or self.high < 1


def interleaved(
    run_a: Run,
    run_b: Run,
    pairs: int = 20,
    *,
    warmup: int = 3,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> Ratio:
    """Time two functions in one process, in the order A B B A, so that drift hits both alike.

    Args:
        run_a: The reference.
        run_b: What is compared with it.
        pairs: Pairs of runs; a block A B B A holds two, so an odd number is rounded up.
        warmup: Runs of each before the clock starts.
        seed: Of the bootstrap; the same times give the same intervals.
        clock: Seconds.
    """
    return ratio_of(alternate(run_a, run_b, pairs, warmup=warmup, clock=clock), seed)


def alternate(
    run_a: Run, run_b: Run, pairs: int, *, warmup: int = 3, clock: Clock = time.perf_counter
) -> NDArray[np.float64]:
    """Seconds of each run, [blocks, 4] in the order A B B A; the arguments are those of :func:`interleaved`."""
    if pairs < 1:
        raise BadUsage(f"pairs must be at least 1, found {pairs}")
    for _ in range(warmup):
        run_a()
        run_b()
    order = (run_a, run_b, run_b, run_a)
    return np.array([[elapsed(run, clock) for run in order] for _ in range((pairs + 1) // 2)])


def ratio_of(blocks: NDArray[np.float64], seed: int = 0) -> Ratio:
    """What follows from the seconds [blocks, 4] of runs in the order A B B A."""
    first_a, first_b, second_b, second_a = blocks.T
    a, b = np.concatenate((first_a, second_a)), np.concatenate((first_b, second_b))
    forward = np.arange(len(blocks)) % 2 == 0  # alternating, so that a steady drift is no difference
    aa = np.where(forward, second_a / first_a, first_a / second_a)
    low, high = median_interval(b / a, seed)
    aa_low, aa_high = median_interval(aa, seed)
    a_ms, b_ms = (float(np.median(times)) * 1e3 for times in (a, b))
    return Ratio(float(np.median(b / a)), low, high, aa_low, aa_high, a_ms, b_ms)


def median_interval(samples: Sequence[float] | NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Bootstrap 95% interval (percentile method) of the median of ``samples``."""
    values = np.asarray(samples, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[picks], axis=1), (2.5, 97.5))
    return float(low), float(high)


def elapsed(run: Run, clock: Clock = time.perf_counter) -> float:
    """Seconds that one run takes."""
    start = clock()
    run()
    return clock() - start
