"""Timing two ways of doing one thing, for as long as it takes to tell them apart and no longer than allowed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from onnxsmith.runtime.measure import Clock, Ratio, Run, elapsed, interleaved

Measure = Callable[[Run, Run, float], Ratio]
_LEAST_SECONDS = 1e-3  # of one timed run: a shorter one repeats, or the clock and the call would be most of it
_PAIRS = (8, 60)


def timed(run_a: Run, run_b: Run, seconds: float, clock: Clock = time.perf_counter) -> Ratio:
    """Time of B over time of A, interleaved A B B A, in about that many seconds; never less than eight pairs."""
    run_a()
    run_b()
    once = elapsed(run_a, clock) + elapsed(run_b, clock)
    repeats = max(1, math.ceil(2 * _LEAST_SECONDS / once))
    pairs = min(max(int(seconds / (once * repeats)), _PAIRS[0]), _PAIRS[1])
    found = interleaved(_repeated(run_a, repeats), _repeated(run_b, repeats), pairs, warmup=1, clock=clock)
    return replace(found, a_ms=found.a_ms / repeats, b_ms=found.b_ms / repeats)


def _repeated(run: Run, repeats: int) -> Run:
    def call() -> None:
        for _ in range(repeats):
            run()

    return call
