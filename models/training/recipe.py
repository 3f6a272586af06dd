"""A recipe: what is trained on which problem, and how, as a TOML file.

steps = 1500                # of all runs
batch = 64
[problem]
name = "translation"        # what stands in onnxsmith.models.recipes; the rest are settings of its own
[model]                     # as in config.json
model_type = "transformer"
[optimizer]
lr = 1e-3
[schedule]
kind = "inverse-sqrt"
warmup = 400
[runs.post-norm]            # overrides the above; a recipe without runs is one run
model.pre_norm = false
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from onnxsmith.errors import BadInput
from onnxsmith.models.training.schedules import Schedule
from onnxsmith.models.training.tables import Count, fill, merged, nearest


@dataclass(frozen=True)
class Optimizer:
    """AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101. ``clip`` is the largest norm of all gradients, 0 for any."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        if max(self.beta1, self.beta2) >= 1:
            raise BadInput(f"[optimizer] has beta1 = {self.beta1}, beta2 = {self.beta2}; both must be less than 1")


@dataclass(frozen=True)
class Run:
    """One model that is trained. ``settings`` are the problem's, ``model`` is its config.json without a vocabulary.

    ``start`` is the run whose weights it starts from, where names and shapes agree. With ``init_std``, weights are
    drawn from N(0, init_std), as BERT's and GPT-2's are, and else as each module does. With ``validate_every``, the
    model is that of the step which did best on the problem's validation data, looked at every so many steps.
    """

    name: str
    problem: str
    steps: int
    batch: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    start: Run | None = None
    seed: Count = 0
    checkpoint_every: int = 250
    validate_every: Count = 0
    init_std: float | None = None

    @cached_property
    def digest(self) -> str:
        """Differs for every other setting, of this run or of one that it starts from."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """Runs in the order in which they are trained, and what they are for in one line."""

    name: str
    title: str
    runs: tuple[Run, ...]


def recipe_names() -> list[str]:
    """The recipes that are part of the package."""
    found = (Path(entry.name) for entry in files("onnxsmith.models.recipes").iterdir())
    return sorted(path.stem for path in found if path.suffix == ".toml")


def read_recipe(source: str | Path, *, steps: int | None = None, seed: int | None = None) -> Recipe:
    """The recipe of a name in ``recipe_names``, or of a file that ends with .toml.

    ``steps`` and ``seed`` take the place of what it says for every run.

    Raises:
        BadInput: there is no such recipe, or it is no TOML, has an unknown key, lacks one, or has a wrong value.
    """
    table = _parse(source)
    given = {key: value for key, value in {"steps": steps, "seed": seed}.items() if value is not None}
    name, title, tables = Path(source).stem, table.pop("title", ""), table.pop("runs", {})
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        raise BadInput(f"{source} has runs = {tables!r}; a table for each run was expected")
    runs: dict[str, Run] = {}
    for run, own in (tables or {name: {}}).items():
        where = f"{source}, run {run}" if tables else str(source)
        runs[run] = _read_run(run, merged(merged(table, own), given), where, runs)
    return Recipe(name, str(title), tuple(runs.values()))


def _parse(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    try:
        if path.suffix == ".toml":
            return tomllib.loads(path.read_text(encoding="utf-8"))
        if str(source) in recipe_names():
            return tomllib.loads(files("onnxsmith.models.recipes").joinpath(f"{source}.toml").read_text("utf-8"))
    except (OSError, ValueError) as e:  # no such file, no UTF-8, no TOML
        raise BadInput(f"{source} is not a readable TOML file ({e}); see onnxsmith.models.recipes for some") from None
    hint = nearest(str(source), recipe_names())
    raise BadInput(f"no recipe {str(source)!r}{hint} (your own is a file that ends with .toml)")


def _read_run(name: str, table: dict[str, Any], where: str, earlier: Mapping[str, Run]) -> Run:
    """The tables within are read on their own."""
    if Path(name).name != name:
        raise BadInput(f"{where}: the run {name!r} cannot be the name of a folder; give another name")
    problem, optimizer, schedule = (_table(table, key, where) for key in ("problem", "optimizer", "schedule"))
    start = table.pop("start", None)
    if start is not None and start not in list(earlier):
        raise BadInput(f"{where} has start = {start!r}; a run that stands before it was expected")
    return fill(
        Run,
        table,
        where,
        name=name,
        problem=str(problem.pop("name", "")),
        settings=problem,
        optimizer=fill(Optimizer, optimizer, f"{where}, [optimizer]"),
        schedule=fill(Schedule, schedule, f"{where}, [schedule]"),
        start=None if start is None else earlier[start],
    )


def _table(table: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = table.pop(key, {})
    if not isinstance(found, dict):
        raise BadInput(f"{where} has {key} = {found!r}; a table was expected")
    return dict(found)
