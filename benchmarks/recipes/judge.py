"""What a trained model is worth in PyTorch and in ONNX: the same questions, answered by each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import onnxsmith
from onnxsmith.models.checkpoint import load_checkpoint
from onnxsmith.models.families import find_family
from onnxsmith.models.running import RunFeeds
from onnxsmith.models.training import Recipe, Result, TextProblem, build_problem
from onnxsmith.runtime.measure import elapsed

TORCH, RAW, FP32, INT8 = "PyTorch", "raw ONNX", "optimized fp32", "int8"
BUDGET = "cosine=0.999"  # of int8
ROWS = 8  # of a batch that is timed
ROUNDS = 15
POINT = 1.0  # percent that int8 may lose; of a figure that is none, a hundredth of it
_CLOSE = 1e-4  # how near figures are that count as the same answer; words are the same or not
FOLDERS = {RAW: "raw", FP32: "fp32", INT8: "int8"}
Judged = dict[str, Any]


@dataclass
class Report:
    """A recipe, what its runs have learned, and by run what its ONNX models are worth, where it has some.

    Those are in ``folder``, below the name of their run.
    """

    recipe: Recipe
    folder: Path
    results: list[Result] = field(default_factory=list)
    judged: dict[str, Judged] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of training and judging."""
        return sum(r.seconds for r in self.results) + sum(one["seconds"] for one in self.judged.values())


def judge(result: Result, folder: Path) -> Judged | None:
    """By variant its quality, how many answers are PyTorch's own, and in ONNX milliseconds for ROWS rows.

    The ONNX models are written below ``folder``. None for what is no model of texts. Raises CheckFailed when the
    optimized model is no longer the same, or no layer keeps the budget of int8.
    """
    problem = build_problem(result.run)
    if not isinstance(problem, TextProblem):
        return None
    problem.module = load_checkpoint(result.folder).module
    seen: list[Mapping[str, Any]] = []
    torch = problem.runner()
    own = problem.answers(_recorded(torch, seen))
    int8 = _compile(result.folder, folder)
    runs = {TORCH: torch, **{name: onnxsmith.load(folder / part).run for name, part in FOLDERS.items()}}
    answers = {name: own if name == TORCH else problem.answers(run) for name, run in runs.items()}
    timed = {name: run for name, run in runs.items() if name != TORCH}  # which would wait for their spinning threads
    times = _times(timed, {name: np.asarray(value)[:ROWS] for name, value in seen[0].items()})
    variants = {
        name: {"quality": problem.quality(found), "same": _same(found, own), "ms": times.get(name)}
        for name, found in answers.items()
    }
    return {"questions": len(own), "variants": variants, **int8}


def faults(judged: Judged) -> list[str]:
    """What does not hold: ONNX models answer as PyTorch does, and int8 is as good to a point."""
    variants, count = judged["variants"], judged["questions"]
    changed = [
        f"{name} answers {count - variants[name]['same']} of {count} questions differently"
        for name in (RAW, FP32)
        if variants[name]["same"] < count
    ]
    (figure, own), *_ = variants[TORCH]["quality"].items()
    found = variants[INT8]["quality"][figure]
    lost = own - found if "%" in figure else 100 * (found - own) / own  # of percents more is better, of bits less
    return changed + [f"int8 has {figure} {found:.4g} instead of {own:.4g}"] * (lost > POINT)


def _compile(checkpoint: Path, folder: Path) -> dict[str, int]:
    """Write the three ONNX models; returns how many layers are int8, of how many that could be."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    raw, fp32, int8 = (folder / part for part in FOLDERS.values())
    onnxsmith.export(find_family(config["model_type"]).architecture, raw, checkpoint=checkpoint)
    onnxsmith.optimize(raw, fp32)
    layers = onnxsmith.optimize(raw, int8, precision="int8", budget=BUDGET).layers
    return {"layers": len(layers), "int8 layers": sum(layer.taken for layer in layers)}


def _recorded(run: RunFeeds, seen: list[Mapping[str, Any]]) -> RunFeeds:
    """The same function, which keeps what it is called with."""

    def call(feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        seen.append(feeds)
        return run(feeds)

    return call


def _same(answers: Sequence[Any], own: Sequence[Any]) -> int:
    """How many answers are those of PyTorch."""
    return sum(_is_same(a, b) for a, b in zip(answers, own, strict=True))


def _is_same(a: Any, b: Any) -> bool:
    return math.isclose(a, b, rel_tol=_CLOSE) if isinstance(a, float) else bool(a == b)


def _times(runs: Mapping[str, RunFeeds], feeds: Mapping[str, Any]) -> dict[str, float]:
    """Median milliseconds of a run, the variants in turn so that all have the same share of whatever disturbs."""
    rounds = [{name: elapsed(lambda run=run: run(feeds)) for name, run in runs.items()} for _ in range(ROUNDS)]
    return {name: 1e3 * median(one[name] for one in rounds) for name in runs}
