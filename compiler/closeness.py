"""Closeness: how near a lossy variant stays to the float32 original, over inputs that calibrated nothing.

Hidden states are judged by cosine and relative RMS error, logits also by KL divergence and top-1 agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.emulate import is_narrow, widened
from onnxsmith.compiler.inputs import Case, table_rows
from onnxsmith.compiler.padding import counting
from onnxsmith.compiler.session import run_model
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.optimize.last_token import at_last_token
from onnxsmith.runtime.parity import cosine, counted, kl_divergence, top1

Values = dict[str, NDArray[Any]]
Run = Callable[[Mapping[str, NDArray[Any]]], Values]
NEAR_TIE = 0.01  # first choices whose probabilities differ by less than this are counted apart


@dataclass(frozen=True)
class Closeness:
    """One output against the float32 original's, over all rows (positions) of all inputs.

    ``relative_rms`` is the RMS error over the original's RMS. Of logits only: ``kl`` is the mean KL divergence in nats,
    ``top1`` the share of rows with the same first choice, ``clear_top1`` that share without rows near a tie.
    """

    output: str
    smallest_cosine: float
    mean_cosine: float
    relative_rms: float
    kl: float | None = None
    top1: float | None = None
    clear_top1: float | None = None

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if value is not None}


def check_closeness(
    original: ir.Model, compiled: ir.Model, cases: Sequence[Case], config: Mapping[str, str]
) -> list[Closeness]:
    """Both models on the same inputs, over the batch rows that have an allowed key; nothing without inputs."""
    if not cases:
        return []
    baseline = run_model(original)
    _, candidate = run_lossy(compiled, config)
    counted_cases = counting(compiled, cases)
    pairs = ((at_last_token(compiled, c.feeds, baseline(c.feeds)), candidate(c.feeds), c) for c in counted_cases)
    return compared(pairs, logits(original))


def run_lossy(compiled: ir.Model, config: Mapping[str, str]) -> tuple[ir.Model, Run]:
    """The model and a function that runs it: what holds 16-bit floats is emulated, hardly any CPU kernel takes them."""
    if not is_narrow(compiled):
        return compiled, run_model(compiled, optimize=True, config=config)
    emulated = widened(compiled)
    return emulated, run_model(emulated)


def compared(pairs: Iterable[tuple[Values, Values, Case]], of_logits: Collection[str]) -> list[Closeness]:
    """One closeness for each floating-point output of at least two dimensions, from the original's values and ours."""
    tallies: dict[str, _Tally] = {}
    for own, result, case in pairs:
        for name, value in result.items():
            if isinstance(value, np.ndarray) and value.ndim > 1 and np.issubdtype(value.dtype, np.floating):
                tally = tallies.setdefault(name, _Tally())
                rows = case.counted(name)
                tally.add(counted(own[name], rows), counted(value, rows), name in of_logits)
    return [tally.closeness(name) for name, tally in tallies.items()]


def logits(model: ir.Model) -> set[str]:
    """The outputs as wide as the table of tokens, the largest that an input picks rows from."""
    tokens = max(filter(None, map(table_rows, model.graph.inputs)), default=None)
    return {str(v.name) for v in model.graph.outputs if tokens is not None and (dims(v) or [None])[-1] == tokens}


@dataclass
class _Tally:
    """Sums over inputs, and what each row showed, while inputs go by."""

    wrong: float = 0.0
    right: float = 0.0
    cosines: list[NDArray[Any]] = field(default_factory=list)
    divergences: list[NDArray[Any]] = field(default_factory=list)
    agreements: list[NDArray[Any]] = field(default_factory=list)
    clear: list[NDArray[Any]] = field(default_factory=list)

    def add(self, own: NDArray[Any], found: NDArray[Any], of_logits: bool) -> None:
        self.wrong += float(np.sum((own.astype(np.float64) - found) ** 2))
        self.right += float(np.sum(own.astype(np.float64) ** 2))
        self.cosines.append(cosine(own, found).ravel())
        if of_logits:
            same, margin = top1(own, found)
            self.divergences.append(kl_divergence(own, found).ravel())
            self.agreements.append(same.ravel())
            self.clear.append(margin.ravel() >= NEAR_TIE)

    def closeness(self, name: str) -> Closeness:
        cosines, rms = np.concatenate(self.cosines), float(np.sqrt(self.wrong / max(self.right, 1e-300)))
        found = Closeness(name, float(cosines.min(initial=1)), float(cosines.mean()) if cosines.size else 1.0, rms)
        if not self.divergences:
            return found
        same, clear = np.concatenate(self.agreements), np.concatenate(self.clear)
        return replace(
            found,
            kl=float(np.concatenate(self.divergences).mean()),
            top1=float(same.mean()),
            clear_top1=float(same[clear].mean()) if clear.any() else None,
        )
