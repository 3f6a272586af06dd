"""One engine in a process of its own, told what to do by JSON lines on stdin; answers are JSON lines on stdout:

    python -m benchmarks.bench.worker ADAPTER VARIANT FOLDER THREADS
    {"shape": [B, S], "output": "out.npy"}    {"seconds": of one warm run, "flops": if known}; some output in out.npy
    {"run": n, "warm": w}                     {"seconds": [n times, after w that are not told]}

The first answer comes when the model is loaded; an answer {"why": reason} says that it cannot be, or what failed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

if TYPE_CHECKING:
    from benchmarks.bench.adapters import Ids, Prepare, Run

_PR_SET_PDEATHSIG = 1
_SAMPLES = 32


def main(adapter: str, variant: str, folder: Path, threads: int) -> None:
    answers = begin()
    prepare: Prepare | None = None
    try:
        prepare = import_module(f"benchmarks.bench.adapters.{adapter}").open_engine(folder, variant, threads)
        answer(answers, {})
    except Exception as e:  # an engine's own fault, whatever it is, is its result
        answer(answers, {"why": reason(e)})
    run: Run | None = None
    for line in sys.stdin:
        try:
            asked = json.loads(line)
            if "shape" in asked and prepare is not None:
                run = prepare(random_ids(folder, *asked["shape"], seed=0))
                answer(answers, _first_runs(run, Path(asked["output"])))
            elif run is not None:
                answer(answers, {"seconds": _timed(run, asked["run"], asked["warm"])})
        except Exception as e:
            answer(answers, {"why": reason(e)})


def random_ids(folder: Path, batch: int, length: int, seed: int) -> Ids:
    """Token ids [batch, length] beyond the special ones, the same for every engine."""
    vocabulary = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    return np.random.default_rng(seed).integers(
        vocabulary // 4, vocabulary - 1000 * (vocabulary > 8000), (batch, length)
    )


def samples(folder: Path) -> Ids:
    """Token ids [32, 128] for engines that calibrate."""
    return np.concatenate([random_ids(folder, 1, 128, seed) for seed in range(_SAMPLES)])


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _first_runs(run: Run, output: Path) -> dict[str, Any]:
    """Run, save the rows' first, middle and last positions, and time a second run."""
    found = run()
    if found is not None:
        array = np.asarray(found, np.float32)
        np.save(output, array[:, sorted({0, array.shape[1] // 2, array.shape[1] - 1})])
    return {"seconds": min(_timed(run, 2, 0)), "flops": getattr(run, "flops", None)}


def _timed(run: Run, times: int, warm: int) -> list[float]:
    for _ in range(warm):
        run()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def begin() -> TextIO:
    """Tie this process to its parent; gives the stdout for answers, what libraries print from now on goes to stderr."""
    if sys.platform == "linux":  # a stopped process must not outlive the one that would wake it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def answer(stream: TextIO, content: dict[str, Any]) -> None:
    """Send one line."""
    print(json.dumps(content), file=stream, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
