"""Which variants are worth having: none other is as fast, as close and as small, and better in one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxsmith.compiler.compare.report import Variant


@dataclass(frozen=True)
class Point:
    """One variant at one set of shapes: ms, relative RMS error against float64, bytes; ``by`` dominates it."""

    variant: str
    at: str
    ms: float
    error: float | None
    size: int | None
    by: str | None = None

    def beats(self, other: Point) -> bool:
        """Whether it is at least as good everywhere and better somewhere; what nobody knows does not count."""
        pairs = [(self.ms, other.ms), (self.error, other.error), (self.size, other.size)]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        return all(a <= b for a, b in known) and any(a < b for a, b in known)


def pareto(variants: Sequence[Variant]) -> list[Point]:
    """Every variant at every set of shapes, dominated ones marked."""
    points = [
        Point(v.name, speed.at, speed.median_ms, v.error, v.structure.size if v.structure else None)
        for v in variants
        for speed in v.speeds
    ]
    return [_marked(p, [q for q in points if q.at == p.at]) for p in points]


def _marked(point: Point, others: Sequence[Point]) -> Point:
    better = next((q.variant for q in others if q is not point and q.beats(point)), None)
    return Point(point.variant, point.at, point.ms, point.error, point.size, better)
