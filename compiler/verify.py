"""Verification: evidence that what runs now computes what the original computed.

Two checks. *Each* compares every region that a pass changed, on values captured before the pass, with the region's
own float64 evaluation. *Final* compares the whole compiled model with the whole original. Both run the float32
baseline with all of ONNX Runtime's optimizations off, else its fusions would hide ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler import inputs
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.padding import counting
from onnxsmith.compiler.pipeline import Outcome, Pass
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.region import changed, cut, expose
from onnxsmith.compiler.session import run_model
from onnxsmith.errors import BadInput, first_line
from onnxsmith.passes.engine.rewrite import Site
from onnxsmith.passes.optimize.last_token import at_last_token
from onnxsmith.runtime.parity import LARGEST_LIMIT, RMS_LIMIT, ErrorRatio, error_ratio, rms

Values = dict[str, NDArray[Any]]
REFUSED = ErrorRatio(np.inf, np.inf, np.inf, finite=False)


@dataclass(frozen=True)
class Evidence:
    """What one output of one region or model showed over all inputs: the worst ratio, and the input that gave it.

    ``relative_rms`` is over all inputs together: the RMS of the error over the RMS of the reference.
    """

    rule: str
    output: str
    worst: ErrorRatio
    case: str
    cases: int
    relative_rms: float

    def to_json(self) -> dict[str, object]:
        return {
            "rule": self.rule,
            "output": self.output,
            "case": self.case,
            "cases": self.cases,
            **self.worst.to_json(),
            "relative_rms": self.relative_rms,
        }

    def __str__(self) -> str:
        if not np.isfinite(self.worst.rms):
            return f"no result, or other shapes or integers than the original's, on {self.case}"
        errors = f"{self.worst.rms:.3g} times its RMS error (at most {RMS_LIMIT:g})"
        errors += f" and {self.worst.largest:.3g} times its largest (at most {LARGEST_LIMIT:g})"
        beyond = "" if self.worst.finite else ", not finite where the original is"
        return f"against the original's own, {errors}{beyond} on {self.case}"


class Unverifiable(Exception):
    """The original cannot be evaluated in float64, or runs on none of the inputs."""


def runnable(original: ir.Model, bounds: Mapping[str, int]) -> list[Case]:
    """The adversarial inputs that the original itself runs: some shapes may be baked in by its exporter.

    None at all where ONNX Runtime refuses the original as it is, which a repair may mend.
    """
    return running(original, inputs.cases(original, bounds))


def running(original: ir.Model, cases: Iterable[Case]) -> list[Case]:
    """The cases that the model runs."""
    try:
        run = run_model(original)
    except BadInput:
        return []
    found = []
    for case in cases:
        try:
            run(case.feeds)
        except Exception:
            continue
        found.append(case)
    return found


@dataclass
class EachPass:
    """The pipeline observer of ``--verify each``: checks every changed region and names the sites to undo.

    Regions of a lossy pass are measured and never undone: a budget on the whole model judges those.
    """

    cases: list[Case]
    evidence: list[Evidence] = field(default_factory=list)

    def __call__(self, step: Pass, before: ir.Model, outcome: Outcome) -> Mapping[Site, str]:
        if not outcome.applied:
            return {}
        found = check_regions(before, outcome.model, self.cases)
        if step.lossy:
            self.evidence += found
            return {}
        sites = _sites([e for e in found if not e.worst.fine], outcome)
        if not sites:
            self.evidence += found
        return sites


def _sites(bad: list[Evidence], outcome: Outcome) -> dict[Site, str]:
    """The applied sites behind failing outputs: the one that gives the output, else all of the pass's same rule."""
    sites: dict[Site, str] = {}
    for e in sorted(bad, key=lambda e: e.worst.rms):  # the worst has the last word
        exact = {s for s in outcome.applied if s.output == e.output}
        blamed = exact or {s for s in outcome.applied if s.rule == e.rule} or set(outcome.applied)
        sites |= dict.fromkeys(blamed, str(e))
    return sites


def check_regions(before: ir.Model, after: ir.Model, cases: Sequence[Case], *, renamed: bool = False) -> list[Evidence]:
    """One evidence per output of every region that differs between the two models, see :func:`changed`."""
    regions = changed(before, after, renamed=renamed)
    if not regions:
        return []
    boundary = list(dict.fromkeys(n for r in regions for n in [*r.inputs, *r.outputs]))
    given = [v for node in before.graph for v in node.outputs if v.name in boundary]
    seen = _captured(expose(before, boundary), counting(after, cases, given))
    tally = Tally(len(seen))
    for region in regions:  # one at a time: each holds its weights in two sessions
        reference = Reference(cut(before, region.inputs, region.outputs))
        candidate = attempt(cut(after, region.inputs, region.outputs))
        for case, captured in seen:
            truth, result = reference.run(captured), candidate(captured)
            for name in region.outputs:
                rows = case.positions.get(name)
                ratio = error_ratio(result[name], captured[name], truth[name], rows) if name in result else REFUSED
                tally.add(name, ratio, case, truth[name])
    return [tally.evidence(rule, name) for r in regions for name in r.outputs for rule in r.rules_at(name)]


def _captured(exposed: ir.Model, cases: Iterable[Case]) -> list[tuple[Case, Values]]:
    run = run_model(exposed)
    return [(case, {**case.feeds, **run(case.feeds)}) for case in cases]


def attempt(model: ir.Model, **options: Any) -> Callable[[Mapping[str, NDArray[Any]]], Values]:
    """Runs a candidate; no outputs where ONNX Runtime refuses it, which is no better than wrong ones."""
    try:
        run = run_model(model, **options)
    except BadInput:
        return lambda feeds: {}

    def call(feeds: Mapping[str, NDArray[Any]]) -> Values:
        try:
            return run(feeds)
        except Exception:  # the runtime's error classes have no common base
            return {}

    return call


@dataclass
class Tally:
    """The worst case and the sums of squares per output, while inputs go by."""

    cases: int = 0
    worst: dict[str, tuple[ErrorRatio, str]] = field(default_factory=dict)
    squares: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, name: str, ratio: ErrorRatio, case: Case, truth: NDArray[Any]) -> None:
        known = self.worst.get(name)
        if known is None or (not ratio.fine, ratio.rms) > (not known[0].fine, known[0].rms):
            self.worst[name] = (ratio, case.name)
        whole = truth.size * rms(truth) ** 2 if np.issubdtype(truth.dtype, np.number) else 0.0
        off, all_ = self.squares.get(name, (0.0, 0.0))
        self.squares[name] = (off + whole * ratio.relative_rms**2, all_ + whole)

    def evidence(self, rule: str, name: str) -> Evidence:
        off, whole = self.squares[name]
        return Evidence(rule, name, *self.worst[name], self.cases, (off / whole) ** 0.5 if whole else 0.0)


def check_whole(
    original: ir.Model, compiled: ir.Model, cases: Sequence[Case], config: Mapping[str, str]
) -> list[Evidence]:
    """The compiled model, run with its session options, against the original in float64: one evidence per output."""
    if not cases:
        raise Unverifiable(_why_none(original))
    expected = list(_expected(original, compiled, cases))  # before the candidate opens: two sessions hold all weights
    candidate = attempt(compiled, optimize=True, config=config)
    tally = Tally(len(expected))
    for case, truth, own in expected:
        result = candidate(case.feeds)
        if sequence := next((name for name, value in result.items() if not isinstance(value, np.ndarray)), None):
            raise Unverifiable(f"output {sequence!r} is no tensor, and only tensors can be compared")
        for name in own:
            rows = case.counted(name)
            found = error_ratio(result[name], own[name], truth[name], rows) if name in result else REFUSED
            tally.add(name, found, case, truth[name])
    return [tally.evidence("whole model", name) for name in tally.worst]


def _expected(original: ir.Model, compiled: ir.Model, cases: Sequence[Case]) -> Iterator[tuple[Case, Values, Values]]:
    """What the original gives, in float64 and in its own precision, as far as the compiled model gives it."""
    reference, baseline = Reference(original), run_model(original)
    for case in counting(compiled, cases):
        truth, own = truth_of(reference, case), baseline(case.feeds)
        yield case, at_last_token(compiled, case.feeds, truth), at_last_token(compiled, case.feeds, own)


def _why_none(original: ir.Model) -> str:
    """Why there are no cases that the original runs."""
    try:
        run_model(original)
    except BadInput as e:
        reason = first_line(e.__cause__ or e).rpartition("failed:")[2]  # before that is a temporary file's name
        return f"ONNX Runtime refuses the original: {reason.strip()}"
    return "the original runs on none of the verification inputs"


def truth_of(reference: Reference, case: Case) -> Values:
    try:
        return reference.run(case.feeds)
    except Exception as e:  # onnx.reference has its own ways to say that it lacks an operator
        raise Unverifiable(f"no float64 evaluation of the original ({first_line(e)})") from e
