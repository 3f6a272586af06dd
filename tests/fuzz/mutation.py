"""A mutation writes one place of a graph in another way that means the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.rewrite import replace
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant


class Mutation(Protocol):
    """``sites`` are names, so that a step can be told, repeated, and left out while a failure is shrunk."""

    @property
    def name(self) -> str: ...

    def sites(self, model: ir.Model) -> list[str]:
        """Where the guard holds."""

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        """Mutate at one of the sites, in place where that is possible."""


@dataclass(frozen=True)
class Respelling:
    """A rule that goes the other way: one pattern of nodes written as another. Sites are output names."""

    name: str
    pattern: Callable[..., Any]
    rewrite: Callable[[Builder, Match, Random], Any]
    where: tuple[Requirement, ...] = ()

    def sites(self, model: ir.Model) -> list[str]:
        rule = self._rule(Random(0))
        return [str(n.outputs[0].name) for n in model.graph if isinstance(rule.match(n), Match)]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        rule, node = self._rule(rng), producer(model, site)
        found = rule.match(node)
        assert isinstance(found, Match), "the guard holds at every site"
        replace(found, rule, Names(model))
        return model

    def _rule(self, rng: Random) -> Rule:
        return Rule(self.name, self.pattern, lambda op, m: self.rewrite(op, m, rng), self.where)


@dataclass(frozen=True)
class Detour:
    """Nodes put behind a value that give it back unchanged: for all that use it, or for one. Sites are value names."""

    name: str
    build: Callable[[Builder, ir.Value, Random], ir.Value]
    guard: Callable[[ir.Value], bool]

    def sites(self, model: ir.Model) -> list[str]:
        values = [*model.graph.inputs, *(v for n in model.graph for v in n.outputs)]
        return [str(v.name) for v in values if v.uses() and not v.is_graph_output() and self.guard(v)]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        value, op = find(model, site), Builder()
        uses = list(value.uses())
        after = self.build(op, value, rng)
        Names(model).adopt(model.graph, op)
        for user, i in uses if rng.random() < 0.7 else [rng.choice(uses)]:
            user.replace_input_with(i, after)
        at = value.producer()
        if at is None:
            model.graph.insert_before(model.graph[0], op.nodes)
        else:
            model.graph.insert_after(at, op.nodes)
        return model


def find(model: ir.Model, name: str) -> ir.Value:
    """The value of that name: an input, an initializer or a node's output."""
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    return next(v for v in values if v.name == name)


def producer(model: ir.Model, name: str) -> ir.Node:
    node = find(model, name).producer()
    assert node is not None, name
    return node


def is_float(m: Match) -> Mismatch | None:
    """The first result is float32: what holds for real numbers does not for integers."""
    v = m.outputs[0]
    return None if v.dtype == ir.DataType.FLOAT else Mismatch("dtype", "float32", v, v)


def computed(v: ir.Value) -> bool:
    """A float32 value of known rank that is no constant."""
    return v.dtype == ir.DataType.FLOAT and v.shape is not None and constant(v) is None
