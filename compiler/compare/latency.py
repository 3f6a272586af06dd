"""How long a run takes: variants alternate with the reference, both warm, and chance is told from difference."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxsmith.compiler.compare.variants import Opened
from onnxsmith.runtime.child import Cost, Setup, run_in_child
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.measure import Ratio, alternate, elapsed, ratio_of

Run = Callable[[], object]
PAIRS = 40  # of timed runs for each variant, unless told otherwise
_SECONDS = 300.0
_LEAST_SECONDS = 1e-3  # of one timed run: of a shorter one the clock and the call would be most
_KEPT = 200  # single times that a report keeps


@dataclass(frozen=True)
class Speed:
    """Times of a run in ms at one set of shapes; ``ratio`` is to the reference's, None for the reference itself.

    ``times_ms`` are the single runs in the order in which they were timed.
    """

    at: str
    median_ms: float
    p90_ms: float
    ratio: Ratio | None
    times_ms: tuple[float, ...]


def race(run_a: Run, run_b: Run, pairs: int, at: str) -> tuple[Speed, Speed]:
    """The reference and a variant, timed in the order A B B A; what is done in less than a ms is repeated."""
    run_a()
    run_b()
    repeats = max(1, math.ceil(2 * _LEAST_SECONDS / (elapsed(run_a) + elapsed(run_b))))
    blocks = alternate(_repeated(run_a, repeats), _repeated(run_b, repeats), pairs) / repeats
    a, b = (1e3 * blocks[:, columns].ravel() for columns in ((0, 3), (1, 2)))
    return _speed(at, a, None), _speed(at, b, ratio_of(blocks))


def _repeated(run: Run, times: int) -> Run:
    def call() -> None:
        for _ in range(times):
            run()

    return call


def together(speeds: Sequence[Speed]) -> Speed:
    """The reference's runs beside all variants as one."""
    times = np.concatenate([np.asarray(s.times_ms) for s in speeds])
    return _speed(speeds[0].at, times, None)


def _speed(at: str, times: NDArray[np.float64], ratio: Ratio | None) -> Speed:
    p50, p90 = (float(np.percentile(times, q)) for q in (50, 90))
    step = max(1, len(times) // _KEPT)
    return Speed(at, p50, p90, ratio, tuple(float(t) for t in times[::step]))


def cost(variant: Opened, feeds: Feeds, threads: int | None) -> Cost | None:
    """Creating the session, the first run and the memory peak, in a fresh process on the CPU.

    None for what is no ONNX model, or does not run there.
    """
    if variant.model is None:
        return None
    setup = Setup(config=dict(variant.model.config), model=str(variant.model.artifact.model.resolve()), threads=threads)
    with tempfile.TemporaryDirectory(prefix="onnxsmith-") as folder:
        return run_in_child(Path(folder), dict(variant.feeds(feeds)), setup, seconds=_SECONDS).cost


def shown(feeds: Feeds) -> str:
    """The shapes of feeds on one line; equal ones once."""
    shapes: Mapping[str, None] = dict.fromkeys("x".join(map(str, array.shape)) for array in feeds.values())
    return ", ".join(shapes) or "no inputs"
