"""What a trained model is worth in PyTorch and in ONNX: the same questions, answered by each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxsmith
from onnxsmith.errors import CheckFailed
from onnxsmith.models.checkpoint import load_checkpoint
from onnxsmith.models.families import find_family
from onnxsmith.models.running import RunFeeds
from onnxsmith.models.training import Recipe, Result, TextProblem, build_problem
from onnxsmith.runtime.measure import elapsed

TORCH, RAW, FP32, INT8 = "PyTorch", "raw ONNX", "optimized fp32", "int8"
BUDGET = "rms=0.01"  # of int8, on logits
SAMPLES = 128  # of what was trained on, that int8 is calibrated with and keeps its budget on
ROWS = 8  # of a batch that is timed
ROUNDS = 15
POINT = 1.0  # percent that int8 may differ; of a figure that is none, a hundredth of it
_SURE = 1.96  # standard errors to either side that hold 95% of a normal distribution
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
    """By variant its quality, how many answers are PyTorch's own, and in ONNX milliseconds for ROWS rows; and how far
    int8 is from PyTorch in the figure that counts, with its 95% interval to either side.

    The ONNX models are written below ``folder``. None for what is no model of texts. Raises CheckFailed when the
    optimized model is no longer the same, no layer keeps the budget of int8, or the data is not that of the training.
    """
    problem = build_problem(result.run)
    if not isinstance(problem, TextProblem):
        return None
    problem.module = load_checkpoint(result.folder).module
    seen: list[Mapping[str, Any]] = []
    torch = problem.runner()
    own = problem.answers(_recorded(torch, seen))
    _check_data(result, problem.quality(own))
    layers = _compile(result.folder, folder, _calibrating(problem))
    runs = {TORCH: torch, **{name: onnxsmith.load(folder / part).run for name, part in FOLDERS.items()}}
    answers = {name: own if name == TORCH else problem.answers(run) for name, run in runs.items()}
    timed = {name: run for name, run in runs.items() if name != TORCH}  # which would wait for their spinning threads
    times = _times(timed, {name: np.asarray(value)[:ROWS] for name, value in seen[0].items()})
    variants = {
        name: {"quality": problem.quality(found), "same": _same(found, own), "ms": times.get(name)}
        for name, found in answers.items()
    }
    difference, interval = _difference(problem.scores(answers[INT8]), problem.scores(own))
    return {"questions": len(own), "variants": variants, "difference": difference, "interval": interval, **layers}


def _check_data(result: Result, found: Mapping[str, float]) -> None:
    """The figures are those of the training; a problem of own text asks others once that has changed."""
    for name, value in result.quality.items():
        if not math.isclose(found[name], value, rel_tol=1e-3):
            now = f"{name} is {found[name]:.4g} now and was {value:.4g} after training"
            raise CheckFailed(
                f"run {result.run.name}: {now}; its data has changed, delete {result.folder} to train anew"
            )


def faults(judged: Judged) -> list[str]:
    """What does not hold: ONNX models answer as PyTorch does, and int8 is as good to a point, better or worse."""
    variants, count = judged["variants"], judged["questions"]
    changed = [
        f"{name} answers {count - variants[name]['same']} of {count} questions differently"
        for name in (RAW, FP32)
        if variants[name]["same"] < count
    ]
    figure, own = next(iter(variants[TORCH]["quality"].items()))
    off = abs(judged["difference"]) / (1 if "%" in figure else own / 100)
    return changed + [f"int8 is off by {judged['difference']:+.2g} {figure}"] * (off > POINT)


def _calibrating(problem: TextProblem) -> dict[str, NDArray[Any]]:
    """Some of what the model learned from, as its inputs."""
    chosen = np.random.default_rng(0).permutation(len(problem.examples))[:SAMPLES]
    read = problem.reads([problem.examples[i] for i in chosen])
    return {name: tensor.numpy() for name, tensor in read.items()}


def _difference(found: Sequence[float], own: Sequence[float]) -> tuple[float, float]:
    """The mean of what one scores more than the other, question by question, and 1.96 of its standard errors."""
    more = [a - b for a, b in zip(found, own, strict=True)]
    return fmean(more), _SURE * stdev(more) / math.sqrt(len(more))


def _compile(checkpoint: Path, folder: Path, samples: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Write the three ONNX models; returns how many layers are int8, of how many that could be."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    raw, fp32, int8 = (folder / part for part in FOLDERS.values())
    onnxsmith.export(find_family(config["model_type"]).architecture, raw, checkpoint=checkpoint)
    onnxsmith.optimize(raw, fp32)
    layers = onnxsmith.optimize(raw, int8, precision="int8", budget=BUDGET, calibrate=samples).layers
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
