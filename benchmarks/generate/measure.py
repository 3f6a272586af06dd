"""One case on all engines: the tokens of each, then interleaved times, and what follows from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.bench.measure import orders, ratio
from benchmarks.bench.process import Broken, Worker
from benchmarks.generate.engines import Case, Engine

LENGTHS = (64, 256, 1024)  # new tokens, over which the time of one should stay the same
_REST = 0.05  # seconds between turns
Answer = dict[str, Any]
Prompts = Sequence[Sequence[int]]


class Speaker(Worker):
    """A worker that generates."""

    module = "benchmarks.generate.worker"

    def generate(self, prompts: Prompts, new: int, beams: int = 1) -> Answer:
        """New "ids", seconds to the "first" token (0 where not told) and in "total", bytes "read" after the first."""
        return self._ask({"prompts": prompts, "new": new, "beams": beams})


def measure(
    workers: Mapping[str, Speaker], case: Case, prompts: Prompts, rounds: int, roof: Callable[[], float]
) -> Answer:
    """By engine its times, or "why" there are none; each engine's first run counts for its tokens alone.

    ``roof`` reads the memory's GB/s, before every run: other tenants of the machine change it within minutes.
    """
    found: dict[str, Answer] = {}
    for name, worker in workers.items():
        try:
            found[name] = {"ids": worker.generate(prompts, case.new, case.beams)["ids"]}
        except Broken as e:
            found[name] = {"why": str(e)}
    timed: dict[str, list[Answer]] = {name: [] for name in found if "ids" in found[name]}
    for number, order in enumerate(orders(list(timed), rounds) if timed else ()):
        for name in order:
            most = _engine(workers[name]).rounds
            if most is None or number < most:
                now = roof()
                timed[name].append(times(workers[name].generate(prompts, case.new, case.beams), case, now))
                time.sleep(_REST)
    for name, rows in timed.items():
        found[name] |= {key: [row[key] for row in rows] for key in rows[0]}
    return found


def times(said: Answer, case: Case, roof: float) -> Answer:
    """Milliseconds: of a run as a whole, to the first token, and of each step after it; their share of the roof."""
    rest = said["total"] - said["first"]
    found = {"whole": said["total"] * 1e3}
    if said["first"]:
        found |= {"first": said["first"] * 1e3, "step": rest / (case.new - 1) * 1e3}
    if said["read"]:
        found["roof"] = said["read"] / rest / 1e9 / roof
    return found


def summarize(found: dict[str, Answer], references: Mapping[str, str], expected: str) -> dict[str, Answer]:
    """Medians and ratios. ``references`` names whom an engine is compared with, ``expected`` whose tokens are right."""
    right = found[expected].get("ids")
    cells: dict[str, Answer] = {}
    for name, answer in found.items():
        if "why" in answer:
            cells[name] = answer
            continue
        cell = {key: median(answer[key]) for key in ("whole", "first", "step", "roof") if key in answer}
        if right is not None:
            cell["same"] = same(answer["ids"], right)
        ours = found[references[name]]
        cell["ratios"] = {
            key: ratio(ours[key][: len(answer[key])], answer[key])
            for key in ("whole", "first", "step")
            if key in answer and key in ours
        }
        cells[name] = cell
    return cells


def same(ids: Prompts, expected: Prompts) -> float:
    """Which part of the tokens comes before a row's first one that differs."""
    pairs = [list(zip(row, right, strict=True)) for row, right in zip(ids, expected, strict=True)]
    agreeing = [next((n for n, (a, b) in enumerate(row) if a != b), len(row)) for row in pairs]
    return sum(agreeing) / sum(map(len, pairs))


def flatness(worker: Speaker, prompts: Prompts) -> dict[str, float]:
    """Tokens a second over the first 64, 256 and 1024 new ones."""
    worker.generate(prompts, LENGTHS[0])
    found = {}
    for new in LENGTHS:
        said = worker.generate(prompts, new)
        found[str(new)] = (new - 1) / (said["total"] - said["first"])
    return found


def _engine(worker: Speaker) -> Engine:
    assert isinstance(worker.engine, Engine)
    return worker.engine
