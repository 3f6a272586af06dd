"""The certificate of an artifact: what was rewritten, on which inputs it was tried, and how far it was off.

A part is what the rewrites left of one connected piece of the original: its rules, the original's nodes that it
stands for, the operators that it is now, and for each of its outputs the error on values captured in the original, as
a multiple of the original's own (see ``runtime/parity.py``). A part that cannot be run alone, since its boundary is
no value of the original's, is listed without: the whole model's outputs are the evidence for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.region import Region, regions
from onnxsmith.compiler.verify import Evidence, check_regions
from onnxsmith.passes.engine.provenance import common_module, origins, rules_of


@dataclass(frozen=True)
class Part:
    """One rewritten piece; ``now`` counts its operators, ``evidence`` is empty where it was not run alone."""

    module: str
    rules: tuple[str, ...]
    nodes: tuple[str, ...]
    now: Mapping[str, int]
    evidence: tuple[Evidence, ...]

    @property
    def fine(self) -> bool:
        return all(e.worst.fine for e in self.evidence)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "evidence": [e.to_json() for e in self.evidence]}


def parts(before: ir.Model, after: ir.Model, cases: Sequence[Case]) -> list[Part]:
    """What differs between a canonical model and what the rewrites made of it, with evidence from the inputs."""
    found = {e.output: e for e in check_regions(before, after, cases, renamed=True)}
    return [_part(region, found) for region in regions(before, after)]


def _part(region: Region, found: Mapping[str, Evidence]) -> Part:
    nodes = region.nodes
    return Part(
        common_module(nodes),
        _each(rule for node in nodes for rule in rules_of(node)),
        _each(name for node in nodes for name in origins(node)),
        dict(Counter(node.op_type for node in nodes)),
        tuple(found[name] for name in region.outputs if name in found),
    )


def _each(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def certificate(
    before: ir.Model, after: ir.Model, cases: Sequence[Case], whole: Sequence[Evidence], **facts: Any
) -> dict[str, Any]:
    """What the file says; ``facts`` go in as they are."""
    return {
        "format": 1,
        **facts,
        "inputs": _shapes(cases),
        "outputs": [e.to_json() for e in whole],
        "parts": [part.to_json() for part in parts(before, after, cases)],
    }


def _shapes(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The inputs that were tried, by name and shape; made-up ones come from a fixed seed."""
    return [{"name": c.name, "shapes": {name: list(array.shape) for name, array in c.feeds.items()}} for c in cases]
