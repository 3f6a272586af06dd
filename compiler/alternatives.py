"""The choices that lowering has in a model: each place where a rule could put another operator, as two small models.

Nothing is listed by hand. A rule of lowering that asks for a kernel is an alternative wherever it matches, were cost no
matter: what it matched is one model, what it makes of that is the other. The first is lowered by all other rules, so
that an operator is compared with the best there is without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.inputs import made_up, table_rows
from onnxsmith.compiler.pipeline import Pass
from onnxsmith.compiler.region import cut
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims
from onnxsmith.passes.lower.kernels import Kernels, Runs, Site
from onnxsmith.passes.lower.shape_class import ShapeClass, shape_class
from onnxsmith.passes.shapes import size_of

RulesOf = Callable[[Kernels], Sequence[Rule]]
Feeds = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Alternative:
    """An operator that could take the place of ``region``, and of all ``places`` of its shape class (output names)."""

    operator: str
    rule: Rule
    shapes: ShapeClass
    region: ir.Model
    places: set[str] = field(default_factory=set)

    def models(self, rules: RulesOf, kernels: Kernels) -> tuple[ir.Model, ir.Model] | None:
        """Without the operator and with it; ``kernels`` are those that would be chosen otherwise.

        None for a rule that needs what lies around the region.
        """
        others = Pass("others", tuple(rules(kernels.without(self.operator))))
        forced = Pass("forced", (self.rule,)).run(self.region.clone())
        if not forced.applied:
            return None
        return others.run(self.region.clone()).model, others.run(forced.model).model


def find(model: ir.Model, rules: RulesOf, kernels: Kernels) -> list[Alternative]:
    """The alternatives of a lifted model, one for each shape class; what joins most comes last.

    The order lets the alternatives for a part be known when those for the whole are compared with it.
    """
    found: dict[Site, Alternative] = {}
    for rule in reversed(rules(kernels.at_any_cost())):
        asked = next((r for r in rule.where if isinstance(r, Runs)), None)
        for m in _matches(rule, model) if asked is not None else ():
            assert asked is not None
            shapes = shape_class(m)
            site = (asked.operator, shapes.text)
            if site not in found:
                found[site] = Alternative(asked.operator, rule, shapes, _region(model, m))
            found[site].places.add(str(m.outputs[0].name))
    return list(found.values())


def _matches(rule: Rule, model: ir.Model) -> Iterator[Match]:
    for node in model.graph:
        found = rule.match(node)
        if isinstance(found, Match):
            yield found


def _region(model: ir.Model, m: Match) -> ir.Model:
    nodes = dict.fromkeys(m.nodes.values())
    read = dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v.producer() not in nodes)
    inputs = [str(v.name) for v in read if constant(v) is None]
    return cut(model, tuple(inputs), tuple(str(v.name) for v in m.outputs))


def feeds(region: ir.Model, sizes: Mapping[str, int], seed: int = 0) -> Feeds | None:
    """Random inputs of a region at these sizes of named dimensions; None where a dimension is not among them."""
    rng = np.random.default_rng(seed)
    made: Feeds = {}
    for v in region.graph.inputs:
        found = dims(v)
        shape = [_extent(dim, sizes) for dim in found] if found is not None else [None]
        if v.dtype is None or None in shape:
            return None
        known = [size for size in shape if size is not None]
        made[str(v.name)] = made_up(known, np.dtype(v.dtype.numpy()), table_rows(v), rng)
    return made


def _extent(dim: int | str | None, sizes: Mapping[str, int]) -> int | None:
    """The size of a dimension such as ``batch``, ``12*batch`` or ``past + sequence``; None for an unknown name."""
    if not isinstance(dim, str) or dim in sizes:
        return sizes[dim] if isinstance(dim, str) else dim
    parts = [size_of(int(part) if part.isdigit() else part) for part in dim.split(" + ")]
    if not sizes.keys() >= {name for part in parts for name in part.names}:
        return None
    return sum(part.factor * math.prod(sizes[name] for name in part.names) for part in parts)
