"""Whether ``compare`` tells chance from difference on this machine: a model beside itself, as it is and slowed by 5%.

Run by ``python benchmarks/chance.py MODEL [--trials 100]``. Each trial is what ``compare`` times, on one session:
once A against A, and once A against A with 5% of its time spent waiting. Reported is how often a difference is claimed;
an honest 95% interval claims 5 of 100 in the first, of which up to 10 are no surprise (p = 0.03 for more).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import onnxsmith
from onnxsmith.cli import console
from onnxsmith.compiler.compare.latency import PAIRS, race
from onnxsmith.runtime.measure import elapsed

SLOWDOWN = 0.05


def main() -> None:
    options = _options()
    session = onnxsmith.load(options.model, threads=options.threads).session
    shape = (options.batch, options.length)
    given = {"input_ids": np.random.default_rng(0).integers(1000, 20000, shape), "attention_mask": np.ones(shape, int)}
    feeds = {v.name: given.get(v.name, np.zeros(shape, int)) for v in session.get_inputs()}

    def plain() -> object:
        return session.run(None, feeds)

    for _ in range(10):
        plain()
    wait = SLOWDOWN * float(np.median([elapsed(plain) for _ in range(50)]))
    for what, other in (("A/A", plain), (f"{SLOWDOWN:.0%} slower", _slowed(plain, wait))):
        ratios = [ratio for _ in range(options.trials) if (ratio := race(plain, other, PAIRS, "")[1].ratio)]
        claimed, median = sum(r.differs for r in ratios), np.median([r.median for r in ratios])
        console.note(f"{what}: a difference claimed in {claimed} of {len(ratios)} trials; median ratio {median:.3f}")


def _slowed(run: Callable[[], object], seconds: float) -> Callable[[], object]:
    def call() -> object:
        result = run()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:  # busy, as slower code would be
            pass
        return result

    return call


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an encoder with input_ids and attention_mask")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--threads", type=int, help="inside an operator; default: ONNX Runtime's own")
    return parser.parse_args()


if __name__ == "__main__":
    main()
