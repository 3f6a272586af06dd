"""Remarks: what a rule did at a place, what it missed and why, and what an analysis found."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Remark:
    """One event at one place, told alike as text and as JSON.

    ``kind`` is applied, missed or analysis; ``node`` a node's name, empty for the whole model; ``module`` the PyTorch
    module path that the exporter recorded, or an empty string; ``code``, ``reason`` and ``line`` are those of the
    furthest mismatch.
    """

    kind: str
    rule: str
    node: str
    module: str = ""
    code: str = ""
    reason: str = ""
    at: str = ""
    line: str = ""
    matched: int = 0

    def __str__(self) -> str:
        place = f"{self.node} ({self.module})" if self.module else self.node
        text = f"{self.kind} {self.rule}" + (f" at {place}" if place else "")
        if self.reason:
            text += f", {self.matched} nodes matched\n  {self.reason}" if self.kind == "missed" else f": {self.reason}"
        return text + (f"\n  at {self.at}" if self.at else "") + (f"\n  --> {self.line}" if self.line else "")

    def to_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if value not in ("", 0)}
