"""Why a pattern or a requirement did not hold: kept as facts, written out only when somebody asks."""

from __future__ import annotations

import linecache
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxsmith.passes.engine.pattern import Source
from onnxsmith.passes.engine.values import show

CODES = {
    "op-type": "another operator stands where the pattern has this one",
    "attribute": "an attribute differs",
    "arity": "the operator has more inputs than the pattern knows",
    "constant": "a value is not this constant, or not a constant at all",
    "same-value": "a value that must appear twice is two different ones",
    "same-node": "a node that must be shared is two different ones",
    "optional-input": "an optional input is present or absent against the pattern",
    "escapes": "a value inside the match is needed outside, so it cannot be removed",
    "rank": "the number of dimensions differs or is unknown",
    "shape": "dimensions that must be equal differ",
    "unknown-dim": "a dimension is unknown; unknown is not equal",
    "dtype": "element types differ or are unknown",
    "opset": "the model's opset has no such operator",
    "kernel": "the target has no kernel for the result",
    "cost": "the target's kernel for the result is slower",
    "mask": "the mask is not one that the result can take",
    "parity": "verification found another result, so the rewrite was rolled back",
}


@dataclass(frozen=True)
class Mismatch:
    """``code`` is one of :data:`CODES` and stable; ``matched`` counts the nodes that had held by then."""

    code: str
    expected: object
    found: object
    at: ir.Node | ir.Value | None = None
    source: Source | None = None
    matched: int = 0

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code

    def __str__(self) -> str:
        return f"{self.code}: expected {show(self.expected)}, found {show(self.found)}"

    @property
    def where(self) -> str:
        """The name of the node or value at which the match ended."""
        return str(self.at.name) if self.at is not None else ""

    @property
    def line(self) -> str:
        """``file.py:12: source text`` of the pattern that failed, or an empty string."""
        if self.source is None:
            return ""
        text = linecache.getline(self.source.file, self.source.line).strip()
        return f"{Path(self.source.file).name}:{self.source.line}: {text}"


def furthest(best: Mismatch | None, other: Mismatch) -> Mismatch:
    """The failure that came closer to a match; equally close ones at one place are told together."""
    if best is None or other.matched > best.matched:
        return other
    same_place = (other.matched, other.code, other.at) == (best.matched, best.code, best.at)
    if same_place and f" or {show(other.expected)} or " not in f" or {show(best.expected)} or ":
        return replace(best, expected=f"{show(best.expected)} or {show(other.expected)}")
    return best
