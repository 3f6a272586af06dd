"""One cell: a model at one shape on all engines of a group, interleaved, and what follows from the times."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench.process import Broken, Worker
from onnxsmith.runtime.measure import median_interval

_LEAST_COSINE = {"fp32": 0.9999, "low": 0.9}  # below it, an engine computes something else, and is not timed
_TURN = 0.02  # seconds that a turn lasts at least
_MOST = 100  # runs a turn
_COLD = 0.1  # seconds; a longer run needs no other before it to be warm
_REST = 0.002  # seconds between turns

T = TypeVar("T")


def orders(items: Sequence[T], rounds: int) -> Iterator[list[T]]:
    """The order of each round: everyone starts once before anyone does again, and each is followed by its reverse.

    So slow drift of the machine hits all alike, in the manner of A B B A.
    """
    for n in range(rounds):
        first = (n // 2) % len(items)
        turned = [*items[first:], *items[:first]]
        yield turned if n % 2 == 0 else turned[::-1]


def set_shapes(workers: dict[str, Worker], batch: int, length: int, scratch: Path) -> dict[str, dict[str, Any]]:
    """Bring every worker to a shape: by name its seconds and output (None where it has none), or "why" it failed."""
    found: dict[str, dict[str, Any]] = {}
    for n, (name, worker) in enumerate(workers.items()):
        path = scratch / f"{n}.npy"
        path.unlink(missing_ok=True)
        try:
            answer = worker.set_shape(batch, length, path)
        except Broken as e:
            found[name] = {"why": str(e)}
            continue
        found[name] = {**answer, "output": np.load(path) if path.exists() else None}
    return found


def judge(
    ready: dict[str, dict[str, Any]], expected: NDArray[Any], groups: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Per engine its cosine with the raw export's output, and "why" where it computes something else."""
    found: dict[str, dict[str, Any]] = {}
    for name, state in ready.items():
        found[name] = {"why": state["why"]} if "why" in state else {}
        output = state.get("output")
        if output is None:
            continue
        cosine = _cosine(output, expected)
        found[name]["cosine"] = round(cosine, 7)
        least = _LEAST_COSINE[groups[name]]
        if not cosine >= least:
            found[name]["why"] = f"wrong output: cosine {cosine:.4f} with the raw export, at least {least} expected"
    return found


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The least cosine of two outputs [B, P, D] over their rows; NaN when they differ in shape or are not finite."""
    if a.shape != b.shape:
        return math.nan
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return float(((x * y).sum(-1) / norms).min())


def time_all(workers: dict[str, Worker], seconds: dict[str, float], rounds: int) -> dict[str, list[float]]:
    """Mean seconds of a run in each round, by worker. Raises Broken when a worker dies."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for order in orders(list(workers), rounds):
        for name in order:
            runs = max(1, min(_MOST, math.ceil(_TURN / seconds[name])))
            found = workers[name].run(runs, int(seconds[name] < _COLD))
            times[name].append(float(np.mean(found)))
            time.sleep(_REST)
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round: the median, and its bootstrap 95% interval."""
    pairs = np.asarray(ours) / np.asarray(theirs)
    return [round(x, 4) for x in (float(np.median(pairs)), *median_interval(pairs))]
