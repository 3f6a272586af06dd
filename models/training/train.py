"""A recipe from its first step to what each run is worth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.models.recipes import PROBLEMS
from onnxsmith.models.training.folder import write_json
from onnxsmith.models.training.loop import Watch, fit
from onnxsmith.models.training.model import draw_normal
from onnxsmith.models.training.problem import Problem
from onnxsmith.models.training.recipe import Recipe, Run
from onnxsmith.models.training.state import FILE, start_from
from onnxsmith.models.training.tables import fill, nearest

RESULT = "result.json"
_FOUND = ("losses", "quality", "samples", "step", "seconds")


@dataclass(frozen=True)
class Result:
    """A run that is done. ``quality`` is by name, the figure that counts first; ``losses`` are of every step.

    ``step`` is the one whose weights the model has, the last where nothing was validated.
    ``folder`` holds the model as the problem saves it, the last checkpoint, and this result.
    """

    run: Run
    folder: Path
    losses: list[float]
    quality: dict[str, float]
    samples: list[str]
    step: int
    seconds: float


def train(recipe: Recipe, folder: Path, *, resume: bool = False, watch: Watch | None = None) -> Iterator[Result]:
    """Train the runs of a recipe, one after the other, and tell what each has learned.

    Args:
        folder: for a recipe of one run its folder, else that of its runs' folders; it is made.
        resume: go on from the checkpoints that are there; runs that are done are not done again.
        watch: called after every step with steps done, steps in all, and what to say of it.

    Raises:
        BadUsage: there is something in the folder, and ``resume`` is off.
        BadInput: the folder is not one of this recipe, or the recipe does not fit its problem.
        CheckFailed: the loss is no longer finite; the last checkpoint stays.
    """
    _check_folder(folder, resume)
    for run in recipe.runs:
        own = folder if len(recipe.runs) == 1 else folder / run.name
        yield _read_result(run, own) or _train_run(run, own, watch or (lambda *_: None))


def build_problem(run: Run) -> Problem:
    """The problem of a run, with its model as it is before the first step.

    Raises BadInput for a problem that there is not, or settings or a model that do not fit it.
    """
    if run.problem not in PROBLEMS:
        raise BadInput(f"run {run.name}: no problem {run.problem!r}{nearest(run.problem, PROBLEMS)}")
    module, _, name = PROBLEMS[run.problem].partition(":")
    kind = getattr(import_module(f"onnxsmith.models.recipes.{module}"), name)
    if run.validate_every and kind.validation is Problem.validation:
        raise BadInput(f"run {run.name}: {run.problem} has no data to validate on; leave out validate_every")
    with _reproducible(run.seed):
        problem: Problem = kind(run.model, fill(kind.Settings, run.settings, f"run {run.name}, [problem]"))
        if run.init_std is not None:
            draw_normal(problem.module, run.init_std)
    return problem


def _train_run(run: Run, folder: Path, watch: Watch) -> Result:
    problem = build_problem(run)
    if run.start is not None:
        start_from(problem.module, folder.parent / run.start.name / FILE, run.start.digest)
    _make_folder(folder)
    with _reproducible(run.seed):
        state = fit(problem, run, folder, watch)
        watch(run.steps, run.steps, f"{run.name}, judging it")
        runner = problem.runner()
        quality, samples = problem.quality(problem.answers(runner)), problem.samples(runner)
    problem.save(folder)
    step = min(state.validated, key=state.validated.__getitem__, default=run.steps)
    found: dict[str, Any] = dict(zip(_FOUND, (state.losses, quality, samples, step, state.seconds), strict=True))
    write_json(folder / RESULT, {"run": run.digest, **found})
    return Result(run, folder, **found)


def _read_result(run: Run, folder: Path) -> Result | None:
    """What an earlier call found; None where it did not come so far, or it was for other settings."""
    try:
        found: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        if found["run"] != run.digest:
            return None
        return Result(run, folder, **{name: found[name] for name in _FOUND})
    except (OSError, ValueError, KeyError):
        return None


def _check_folder(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; name a folder to make")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise BadUsage(f"{folder} is not empty; --resume goes on with a training in it, or give a new folder")


def _make_folder(folder: Path) -> None:
    """Hidden files are what is left of a run that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / FILE).exists() and (other := [p.name for p in folder.iterdir() if not p.name.startswith(".")]):
        raise BadInput(f"{folder} has {min(other)} and no checkpoint to go on from; give a new folder")


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Within it PyTorch draws from that seed on, and has no algorithm whose result differs from time to time."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(before)
