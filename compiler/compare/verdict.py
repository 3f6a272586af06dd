"""One word for each pair, and the gates that make a comparison fail in CI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from onnxsmith.compiler.budget import Budget
from onnxsmith.compiler.closeness import Closeness
from onnxsmith.compiler.compare.accuracy import Accuracy, worst
from onnxsmith.compiler.compare.layers import Layer

if TYPE_CHECKING:
    from onnxsmith.compiler.compare.report import Comparison, Variant

Word = Literal["identical", "equivalent", "within budget", "different"]
WORDS: tuple[Word, ...] = get_args(Word)  # the closest first


@dataclass(frozen=True)
class Verdict:
    """``word`` for a variant beside the reference, ``reason`` on one line.

    "identical" is every bit of every output, "equivalent" an error as verification allows it (twice the RMS error of
    the reference's own float32, four times its largest), "within budget" what the caller's limits allow.
    ``diverging`` is the first value at which a variant leaves what verification allows, where it was looked for.
    """

    word: Word
    reason: str
    diverging: Layer | None = None


def verdict(
    found: Sequence[Accuracy], near: Sequence[Closeness], max_error: float | None, budget: Budget | None
) -> Verdict:
    """Judge one variant by its outputs. ``max_error`` limits the relative RMS error of each."""
    furthest = worst(found)
    if all(a.equal for a in found):
        return Verdict("identical", f"every bit of {len(found)} outputs over {furthest.cases} inputs")
    figures = f"{furthest.output}: {furthest.rms_ratio:.3g} times the reference's own RMS error on {furthest.case}"
    if all(a.fine for a in found):
        return Verdict("equivalent", figures)
    error = max(a.relative_rms for a in found)
    told = f"{figures}, relative RMS {error:.2g}"
    broken = _broken(error, near, max_error, budget)
    if broken or (max_error is None and budget is None):
        return Verdict("different", f"{told}; {broken}" if broken else told)
    return Verdict("within budget", told)


def _broken(error: float, near: Sequence[Closeness], max_error: float | None, budget: Budget | None) -> str:
    """The limits that do not hold."""
    parts = []
    if max_error is not None and not error <= max_error:
        parts.append(f"the error exceeds {max_error:g}")
    if budget is not None and not budget.holds(near):
        parts.append(budget.shortfall(near))
    return ", ".join(parts)


@dataclass(frozen=True)
class Gates:
    """What a comparison must show for exit code 0; None and 0 ask for nothing.

    ``require`` is the loosest verdict that passes. ``min_speedup`` is the reference's time over the variant's, of the
    medians; 1.2 is a fifth faster.
    """

    max_error: float | None = None
    budget: Budget | None = None
    min_speedup: float | None = None
    require: Word | None = None

    def failures(self, comparison: Comparison) -> list[str]:
        """One line for each gate that a variant misses."""
        return [line for variant in comparison.variants[1:] for line in self._of(variant)]

    def _of(self, variant: Variant) -> list[str]:
        found, lines = variant.verdict, []
        error = max((a.relative_rms for a in variant.accuracy), default=math.nan)
        if self.max_error is not None and not error <= self.max_error:
            lines.append(f"{variant.name}: relative RMS error {error:.3g}, at most {self.max_error:g} wanted")
        if self.budget is not None and not self.budget.holds(variant.closeness):
            lines.append(f"{variant.name}: {self.budget.shortfall(variant.closeness)}")
        if self.require is not None and (found is None or WORDS.index(found.word) > WORDS.index(self.require)):
            told = f"{found.word} ({found.reason})" if found else "without a verdict"
            lines.append(f"{variant.name}: {told}, {self.require} wanted")
        if self.min_speedup is not None:
            lines += [
                f"{variant.name}: speedup {1 / speed.ratio.median:.3g} at {speed.at}, {self.min_speedup:g} wanted"
                for speed in variant.speeds
                if speed.ratio is not None and 1 / speed.ratio.median < self.min_speedup
            ]
        return lines
