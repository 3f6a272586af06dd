"""Bisect: which step of the pipeline is to blame for a result that differs.

The steps are the passes' transforms and the single rewrites of their rules, in the order in which they happen. The
model is compiled up to some step and judged, and the steps are halved until one is left: right before it, wrong after.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.budget import Budget
from onnxsmith.compiler.budget import parse as parse_budget
from onnxsmith.compiler.cached import check_model, closeness_of
from onnxsmith.compiler.dims import Dims, name_dims
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.past import bounds_of_text, plain, text_model, with_past_recorded
from onnxsmith.compiler.pipeline import Logits, Outcome, Pass
from onnxsmith.compiler.samples import Given, given_cases
from onnxsmith.compiler.source import open_source
from onnxsmith.compiler.target import Target
from onnxsmith.compiler.target import target as find_target
from onnxsmith.compiler.verify import Unverifiable, runnable
from onnxsmith.errors import BadInput
from onnxsmith.passes.engine.provenance import module_of, origins
from onnxsmith.passes.engine.rewrite import Site

Judge = Callable[[ir.Model, Case], str | None]  # why the result is wrong on this input


@dataclass(frozen=True)
class Step:
    """A rewrite of a pass, or without a site all that the pass does beside its rules."""

    number: int  # of the pass
    name: str  # of the pass
    site: Site | None = None


@dataclass(frozen=True)
class Culprit:
    """The first step after which the result is wrong. ``origins`` are the original's nodes that it rewrote."""

    step: str
    rule: str | None
    output: str | None
    module: str
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Bisection:
    """``culprit`` is None where nothing is wrong; ``why`` and ``case`` say how the whole is, and on which inputs."""

    culprit: Culprit | None
    why: str
    case: str
    steps: int
    cases: int
    judged: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bisect(
    source: str | Path,
    *,
    inputs: Given | None = None,
    target: str = "cpu",
    precision: str = "fp32",
    budget: str | None = None,
    dims: Dims | None = None,
    half_io: bool = False,
    unpad: bool = False,
    cache: bool = False,
    all_logits: bool = False,
    last_token: bool = False,
) -> Bisection:
    """Find the rewrite of :func:`onnxsmith.optimize` that makes a model's results wrong.

    Args:
        source: the original, an artifact folder or an .onnx file.
        inputs: arrays [N, ..] by input name, or texts, that show it; otherwise made-up ones are tried.
        budget: what a lossy precision may cost; without one only what comes before is judged.

    The other arguments are those of ``optimize``.

    Raises:
        BadInput: the source cannot be used, or is not comparable. BadUsage: no such target, precision or budget.
    """
    where = find_target(target, precision)
    artifact = open_source(source)
    if artifact.is_structure:
        raise BadInput(f"{source} is a structure, its weights are absent; nothing can be compared")
    original = name_dims(load_model(source), dims or {})
    original = with_past_recorded(original) if cache else original
    bounds, reads = bounds_of_text(original, artifact.manifest.get("bounds", {})), text_model(original)
    cases = given_cases(inputs, reads, artifact) if inputs is not None else runnable(reads, bounds)
    if not cases:
        raise BadInput(f"{source} runs on none of the verification inputs; give some that it takes")
    kept: Logits = "all" if all_logits else "last"
    passes = pipeline.passes(
        where,
        precision,
        bounds,
        keep_io=not half_io,
        without_padding=unpad,
        cache=kept if cache else None,
        only_last=last_token,
    )
    limits = parse_budget(budget) if budget is not None else None
    exact = [step for step in passes if not step.lossy]
    wanted = passes if limits is not None else exact
    search = _Search(original, wanted, _judge(original, where, limits if len(wanted) > len(exact) else None))
    try:
        return search(cases)
    except Unverifiable as e:
        raise BadInput(f"{source} cannot be compared: {e}") from e


def _judge(original: ir.Model, where: Target, budget: Budget | None) -> Judge:
    """By a budget where one is given, else by the parity rule."""

    def within(model: ir.Model, case: Case) -> str | None:
        found = closeness_of(original, [model], [case], where.session)
        return None if budget is None or budget.holds(found) else budget.shortfall(found)

    def parity(model: ir.Model, case: Case) -> str | None:
        wrong = [e for e in check_model(original, [model], [case], where.session) if not e.worst.fine]
        return f"{wrong[0].output}: {wrong[0]}" if wrong else None

    return parity if budget is None else within


@dataclass
class _Search:
    original: ir.Model
    passes: list[Pass]
    judge: Judge
    judged: int = 0

    def __call__(self, cases: Sequence[Case]) -> Bisection:
        steps, whole = self._steps()
        for case in cases:
            if why := self._wrong(whole, case):
                break
        else:
            return Bisection(None, "", "", len(steps), len(cases), self.judged)
        first = bisect_left(
            range(len(steps)), True, key=lambda n: self._wrong(self._upto(steps[: n + 1]), case) is not None
        )
        return Bisection(self._culprit(steps, first), why, case.name, len(steps), len(cases), self.judged)

    def _wrong(self, model: ir.Model, case: Case) -> str | None:
        self.judged += 1
        return self.judge(model, case)

    def _steps(self) -> tuple[list[Step], ir.Model]:
        """All that happens, and the model that it leaves."""
        found: list[Step] = []
        model = plain(self.original.clone())
        for number, step in enumerate(self.passes):
            outcome = step.run(model)
            if step.transform is not None:
                found.append(Step(number, step.name))
            found += [Step(number, step.name, site) for site in outcome.applied]
            model = outcome.model
        return found, model

    def _upto(self, steps: Sequence[Step]) -> ir.Model:
        """The model after the given steps, and with no others."""
        last = steps[-1].number if steps else -1
        allowed = {step.site for step in steps if step.number == last}
        model = plain(self.original.clone())
        for step in self.passes[:last]:
            model = step.run(model).model
        return _only(self.passes[last], model, allowed) if steps else model

    def _culprit(self, steps: Sequence[Step], first: int) -> Culprit:
        step = steps[first]
        if step.site is None:
            return Culprit(step.name, None, None, "", ())
        made = list(_made(self._upto(steps[: first + 1]), step.site))
        names = dict.fromkeys(name for node in made for name in origins(node))
        module = next((found for node in made if (found := module_of(node))), "")
        return Culprit(step.name, step.site.rule, step.site.output, module, tuple(names))


def _only(step: Pass, model: ir.Model, allowed: set[Site | None]) -> ir.Model:
    """The pass with some of its rewrites; what takes the place of one that is left out is left out as well."""
    denied: set[Site] = set()
    while True:
        outcome: Outcome = step.run(model.clone(), denied)
        others = {site for site in outcome.applied if site not in allowed}
        if not others:
            return outcome.model
        denied |= others


def _made(model: ir.Model, site: Site) -> Iterator[ir.Node]:
    return (n for n in model.graph.all_nodes() if any(v.name == site.output for v in n.outputs))
