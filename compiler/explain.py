"""Explain: every site of a model, fused by which rule, or missed and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from onnxsmith.compiler import pipeline, sites
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.sites import Site
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.engine.remark import Remark

__all__ = ["Explanation", "Site", "explain"]


@dataclass(frozen=True)
class Explanation:
    """The sites in graph order, and every remark that a rule made."""

    sites: list[Site]
    remarks: list[Remark]

    def counts(self) -> dict[str, dict[str, int]]:
        """Per kind of site, how many have which status."""
        table: dict[str, Counter[str]] = {}
        for site in self.sites:
            table.setdefault(site.kind, Counter())[site.status] += 1
        return {kind: dict(counter) for kind, counter in table.items()}

    def to_json(self) -> dict[str, object]:
        return {
            "sites": [site.to_json() for site in self.sites],
            "remarks": [remark.to_json() for remark in self.remarks],
            "counts": self.counts(),
        }


def explain(path: str | Path) -> Explanation:
    """What `optimize` would do to the model at ``path``; nothing is run, verified or written.

    Raises BadInput when the model cannot be loaded.
    """
    model = canonicalize(load_model(path))
    anchors = sites.find(model)
    outcome = pipeline.run(model, pipeline.passes(target("cpu", "fp32"), "fp32"))
    return Explanation(sites.settle(anchors, outcome.model, outcome.remarks), outcome.remarks)
