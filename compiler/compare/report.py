"""What a comparison found, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxsmith.compiler.compare.numerics import OutputParity, SearchAgreement
from onnxsmith.compiler.compare.structure import Structure
from onnxsmith.runtime.measure import Ratio


@dataclass(frozen=True)
class Variant:
    """One column. The reference has nothing to compare itself with, and peers have no file: None there.

    ``session`` says how ONNX Runtime was set up, ``load_seconds`` how long opening took. ``latency_ms`` is
    the median time of a run, ``latency`` the ratio of that time to the reference's: below 1, it is faster.
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


@dataclass(frozen=True)
class Comparison:
    """Variants beside the first, the reference. ``threads`` is None where ONNX Runtime chose their number."""

    variants: tuple[Variant, ...]
    shapes: Mapping[str, tuple[int, ...]]
    provider: str
    threads: int | None
    pairs: int

    @property
    def reference(self) -> Variant:
        """What the others are compared with."""
        return self.variants[0]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; numbers that are not finite, which JSON lacks, become null."""
        data: dict[str, Any] = _plain(asdict(self))
        return data


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
