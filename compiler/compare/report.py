"""What a comparison found, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxsmith.compiler.closeness import Closeness
from onnxsmith.compiler.compare.accuracy import Accuracy
from onnxsmith.compiler.compare.latency import Speed
from onnxsmith.compiler.compare.layers import Layer
from onnxsmith.compiler.compare.numerics import OutputParity, SearchAgreement
from onnxsmith.compiler.compare.pareto import Point
from onnxsmith.compiler.compare.profile import Operator, Roofs
from onnxsmith.compiler.compare.structure import Changes, Structure
from onnxsmith.compiler.compare.verdict import Verdict
from onnxsmith.runtime.child import Cost
from onnxsmith.runtime.measure import Ratio

FORMAT = 1  # of the JSON, which docs/compare.md describes
_LONGEST = 400  # characters of a name: a model may hold longer ones, many times


@dataclass(frozen=True)
class Variant:
    """One column. The reference has nothing to compare itself with, and peers have no file: None there.

    ``session`` says how ONNX Runtime was set up, ``load_seconds`` how long opening took. ``latency_ms`` is
    the median time of a run, ``latency`` the ratio of that time to the reference's: below 1, it is faster; both are
    those of the first shapes, and ``speeds`` has all. ``parity`` compares outputs with the reference's on the timed
    input, ``accuracy`` with float64 on the adversarial ones; ``closeness`` is the same as budgets read it. ``raced``
    are the reference's runs beside this variant's.
    """

    name: str
    session: str | None = None
    precision: str | None = None
    load_seconds: float | None = None
    structure: Structure | None = None
    latency_ms: float | None = None
    latency: Ratio | None = None
    parity: tuple[OutputParity, ...] = ()
    search: SearchAgreement | None = None
    verdict: Verdict | None = None
    accuracy: tuple[Accuracy, ...] = ()
    closeness: tuple[Closeness, ...] = ()
    changes: Changes | None = None
    layers: tuple[Layer, ...] = ()
    speeds: tuple[Speed, ...] = ()
    cost: Cost | None = None
    operators: tuple[Operator, ...] = ()
    raced: tuple[Speed, ...] = ()

    @property
    def error(self) -> float | None:
        """The relative RMS error of the worst output against float64."""
        return max((a.relative_rms for a in self.accuracy), default=None)

    def share_of_roof(self, roofs: Roofs) -> float | None:
        """GFLOP/s of its products in the time of a whole run, over what the machine's products reach."""
        total = sum(o.ms for o in self.operators)
        return sum(o.gflop for o in self.operators) / total * 1e3 / roofs.gflop_s if total else None


@dataclass(frozen=True)
class Comparison:
    """Variants beside the first, the reference. ``threads`` is None where ONNX Runtime chose their number.

    ``shapes`` are those of the timed inputs (the first ones). ``note`` says what could not be done.
    """

    variants: tuple[Variant, ...]
    shapes: Mapping[str, tuple[int, ...]]
    provider: str
    threads: int | None
    pairs: int
    pareto: tuple[Point, ...] = ()
    roofs: Roofs | None = None
    note: str = ""

    @property
    def reference(self) -> Variant:
        """What the others are compared with."""
        return self.variants[0]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; numbers that are not finite, which JSON lacks, become null."""
        data: dict[str, Any] = _plain({"format": FORMAT, **asdict(self)})
        return data


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}... ({len(value)} characters)"
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
