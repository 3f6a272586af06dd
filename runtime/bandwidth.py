"""How fast this machine reads memory: the roof of what generates a token at a time, as each reads all weights."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from onnxsmith.runtime.measure import elapsed

_NUMBERS = 1 << 24  # of 4 bytes each a thread: more than a processor's own memory keeps
_RUNS = 5


@cache
def read_bandwidth(threads: int | None = None) -> float:
    """As :func:`measure_bandwidth`, measured once a process."""
    return measure_bandwidth(threads)


def measure_bandwidth(threads: int | None = None) -> float:
    """Bytes a second that so many threads read together, the best of a few runs; takes about a tenth of a second.

    None stands for one thread a core that this process may use.
    """
    count = threads or logical_cores()
    parts = np.ones((count, _NUMBERS), np.float32)
    with ThreadPoolExecutor(count) as pool:
        best = min(elapsed(lambda: list(pool.map(np.max, parts))) for _ in range(_RUNS))
    return parts.nbytes / best


def logical_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
