"""How far a variant is from the truth, output by output: the reference in float64 over adversarial inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.closeness import Closeness, compared
from onnxsmith.compiler.compare.variants import Opened
from onnxsmith.compiler.inputs import Case
from onnxsmith.errors import BadInput
from onnxsmith.runtime.parity import ErrorRatio, counted, error_ratio

Values = Mapping[str, NDArray[Any]]
_TOP = 5
_NONE = ErrorRatio(np.inf, np.inf, np.inf, finite=False)


@dataclass(frozen=True)
class Known:
    """One input, what the reference makes of it in float64, without optimizations, and as it is run.

    ``truth`` is ``plain`` where there is no float64 evaluation.
    """

    case: Case
    truth: Values
    plain: Values
    found: Values


@dataclass(frozen=True)
class Accuracy:
    """One output against the reference's in float64, over ``cases`` inputs; ``case`` is the worst of them.

    ``rms_ratio`` and ``largest_ratio`` are multiples of the reference's own float32 errors; ``fine`` says that they
    are within the limits of verification. ``ulp`` is the largest error in float32 units in the last place of the value
    or of the output's RMS, whichever is larger. ``kl`` (nats), ``top1`` and ``top5`` (shares of equal choices) are of
    logits alone. ``equal`` says that every bit is that of the reference as it is run.
    """

    output: str
    case: str
    cases: int
    fine: bool
    equal: bool
    rms_ratio: float
    largest_ratio: float
    relative_rms: float
    ulp: float
    mean_cosine: float | None = None
    least_cosine: float | None = None
    kl: float | None = None
    top1: float | None = None
    top5: float | None = None


def worst(figures: Sequence[Accuracy]) -> Accuracy:
    """The output that is furthest from the truth."""
    return max(figures, key=lambda a: (not a.fine, a.rms_ratio))


def accuracy(
    variant: Opened, reference: ir.Model, known: Sequence[Known], logits: Collection[str]
) -> tuple[list[Accuracy], list[Closeness]]:
    """Figures of every output that both have, and the same as budgets read them."""
    cases = variant.counting(reference, [k.case for k in known])
    runs = [_attempt(variant, case) for case in cases]
    names = [n for n in known[0].truth if any(n in run for run in runs)]
    pairs = [
        ({n: k.truth[n] for n in names}, {n: run[n] for n in names}, case)
        for k, run, case in zip(known, runs, cases, strict=True)
        if all(n in run and run[n].shape == k.truth[n].shape for n in names)
    ]
    near = compared(pairs, logits) if len(pairs) == len(known) else []
    by_name = {c.output: c for c in near}
    with np.errstate(invalid="ignore"):  # what is not finite is found, and no reason to warn
        return [_output(n, known, runs, cases, by_name.get(n)) for n in names], near


def _attempt(variant: Opened, case: Case) -> Values:
    """The outputs, none where the variant refuses the input."""
    try:
        return variant.run(case.feeds)
    except BadInput:
        return {}


def _output(
    name: str, known: Sequence[Known], runs: Sequence[Values], cases: Sequence[Case], near: Closeness | None
) -> Accuracy:
    ratios = [
        error_ratio(run[name], k.plain[name], k.truth[name], case.counted(name)) if name in run else _NONE
        for k, run, case in zip(known, runs, cases, strict=True)
    ]
    worst = max(range(len(known)), key=lambda i: (not ratios[i].fine, ratios[i].rms))
    equal = all(
        name in run and np.array_equal(run[name], k.found[name], equal_nan=_is_float(run[name]))
        for k, run in zip(known, runs, strict=True)
    )
    kept = [(k, run, case) for k, run, case in zip(known, runs, cases, strict=True) if name in run]
    return Accuracy(
        name,
        cases[worst].name,
        len(cases),
        all(r.fine for r in ratios),
        equal,
        ratios[worst].rms,
        max(r.largest for r in ratios),
        max(r.relative_rms for r in ratios),
        max((ulp(run[name], k.truth[name], case.counted(name)) for k, run, case in kept), default=np.inf),
        near.mean_cosine if near else None,
        near.smallest_cosine if near else None,
        near.kl if near else None,
        near.top1 if near else None,
        _top5(name, kept) if near and near.kl is not None else None,
    )


def _is_float(x: NDArray[Any]) -> bool:
    return bool(np.issubdtype(x.dtype, np.floating))


def ulp(candidate: NDArray[Any], truth: NDArray[Any], rows: NDArray[np.bool_] | None = None) -> float:
    """The largest error in units in the last place of float32, of the value or the RMS, whichever is larger."""
    if candidate.shape != truth.shape or not _is_float(truth):
        return 0.0 if np.array_equal(candidate, truth) else float(np.inf)
    if rows is not None:
        candidate, truth = counted(candidate, rows), counted(truth, rows)
    usable = np.isfinite(truth)
    if not usable.any():
        return 0.0
    right, ours = truth[usable].astype(np.float64), candidate[usable].astype(np.float64)
    scale = np.maximum(np.abs(right), np.sqrt(np.mean(np.square(right))))
    units = np.spacing(np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        errors = np.abs(ours - right) / units
    return float(np.where(np.isfinite(errors), errors, np.inf).max())


def _top5(name: str, kept: Sequence[tuple[Known, Values, Case]]) -> float:
    """The share of the reference's five first choices that are among the variant's."""
    shares = []
    for k, run, case in kept:
        right, ours = (counted(x, case.counted(name)) for x in (k.truth[name], run[name]))
        n = min(_TOP, right.shape[-1])
        first, second = (np.argpartition(x, -n, axis=-1)[..., -n:] for x in (right, ours))
        shares.append((first[..., :, None] == second[..., None, :]).any(-1).mean(-1).ravel())
    whole = np.concatenate(shares)
    return float(whole.mean()) if whole.size else 1.0
