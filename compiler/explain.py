"""Explain: every site of a model, fused by which rule, or missed and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxsmith.compiler import pipeline, sites
from onnxsmith.compiler.dims import Dims, name_dims
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.sites import Site
from onnxsmith.compiler.target import TARGETS, target
from onnxsmith.errors import BadUsage, CheckFailed
from onnxsmith.passes import lift, lower
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.quantize import int8

__all__ = ["Explanation", "Site", "documentation", "explain", "require"]


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


def require(explanation: Explanation, wanted: Mapping[str, int | None]) -> None:
    """Hold the sites to a gate: of each kind, so many are fused, or at least one and all that can be (None).

    Raises CheckFailed that names the first kind that falls short, with its counts and the first reason.
    """
    for kind, least in wanted.items():
        sites = [site for site in explanation.sites if site.kind == kind and site.status != "inexpressible"]
        missed = [site for site in sites if site.status == "missed"]
        fused = len(sites) - len(missed)
        if fused >= (max(len(sites), 1) if least is None else least):
            continue
        why = f"; {missed[0].where}: {missed[0].reason}" if missed else ""
        raise CheckFailed(f"{fused} of {len(sites)} {kind} sites are fused, {least or 'all'} are required{why}")


def documentation(rule: str) -> str:
    """What a rule looks for and builds, in its own words. Raises BadUsage, which lists them, for an unknown rule."""
    kernels = TARGETS["cpu"].kernels
    assert kernels is not None
    rules = {r.name: r for r in (*lift.RULES, *lower.rules(kernels), *int8.rules(kernels, {}))}
    if rule not in rules:
        raise BadUsage(f"no rule {rule!r}; rules are {', '.join(sorted(rules))}")
    return rules[rule].documentation


def explain(path: str | Path, *, dims: Dims | None = None) -> Explanation:
    """What `optimize` would do to the model at ``path``; nothing is run, verified or written.

    ``dims`` names the dimensions of inputs, as for `optimize`. Raises BadInput when the model cannot be loaded.
    """
    model = canonicalize(name_dims(load_model(path), dims or {}))
    anchors = sites.find(model)
    outcome = pipeline.run(model, pipeline.passes(target("cpu", "fp32"), "fp32"))
    return Explanation(sites.settle(anchors, outcome.model, outcome.remarks), outcome.remarks)
