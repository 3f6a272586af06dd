"""Matching: the first way that a pattern holds at a node, or the reason it came closest to holding.

The search is a generator over immutable bindings: alternatives, commuted operands and repeated names need no
copies of a rule, and backing out costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.mismatch import Mismatch, furthest
from onnxsmith.passes.engine.pattern import AttrVar, Const, Either, Op, Pattern, Source, Var
from onnxsmith.passes.engine.values import attribute, constant, readable, scalar, widens

_ROUNDING = {ir.DataType.FLOAT16: 2**-10, ir.DataType.BFLOAT16: 2**-7}  # how far a written constant may be off
COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor", "Equal", "Max", "Min"})


@dataclass(frozen=True)
class Match:
    """What each name of a pattern stands for at one place of a graph."""

    root: ir.Node
    values: Mapping[str, ir.Value] = field(default_factory=dict)
    nodes: Mapping[Op, ir.Node] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[ir.Value, ...] = ()

    def with_value(self, name: str, value: ir.Value) -> Match:
        """This match with one more name; not by ``dataclasses.replace``, which would be a tenth of a compilation."""
        return Match(self.root, {**self.values, name: value}, self.nodes, self.tags, self.attributes, self.outputs)

    def with_node(self, pattern: Op, node: ir.Node) -> Match:
        return Match(self.root, self.values, {**self.nodes, pattern: node}, self.tags, self.attributes, self.outputs)

    def __getitem__(self, name: str) -> ir.Value:
        """The value bound to ``name``; KeyError when the alternative that held does not bind it."""
        return self.values[name]

    def get(self, name: str) -> ir.Value | None:
        return self.values.get(name)

    def tag(self, name: str) -> str | None:
        return self.tags.get(name)

    def attribute(self, name: str) -> Any:
        return self.attributes.get(name)

    def scalar(self, name: str) -> float | None:
        """The one element of a constant, or None when it is absent, not constant or not one element."""
        return scalar(self.values.get(name))


Requirement = Callable[[Match], Mismatch | None]
Stays = Callable[[ir.Value], bool]


def match(
    roots: tuple[Op, ...], node: ir.Node, where: Sequence[Requirement] = (), stays: Stays | None = None
) -> Match | Mismatch:
    """The first way in which the pattern and the requirements hold with the first root at ``node``.

    No inner value may be needed outside, save those that ``stays`` allows. Otherwise why it does not: what refused a
    whole match tells more than where another attempt ended.
    """
    search, refused = _Search(), None
    for found in search.roots(roots, node):
        if (why := _refusal(found, where, stays)) is None:
            return found
        refused = furthest(refused, why)
    best = refused or search.best
    assert best is not None, "a search without a match has failed somewhere"
    return best


class _Search:
    def __init__(self) -> None:
        self.best: Mismatch | None = None

    def fail(self, m: Match, code: str, expected: object, found: object, at: Any, source: Source | None) -> None:
        if self.best is None or len(m.nodes) >= self.best.matched:
            self.best = furthest(self.best, Mismatch(code, expected, found, at, source, len(m.nodes)))

    def roots(self, patterns: tuple[Op, ...], node: ir.Node) -> Iterator[Match]:
        if (node.op_type, node.domain) != (patterns[0].op_type, patterns[0].domain):
            self.fail(Match(node), "op-type", patterns[0].op_type, node.op_type, node, patterns[0].source)
            return
        for m in self.op(patterns[0], node, Match(node)):
            first = replace(m, outputs=(node.outputs[patterns[0].output],))
            yield from self.further_roots(patterns[1:], first)

    def further_roots(self, patterns: tuple[Op, ...], m: Match) -> Iterator[Match]:
        """Other outputs are reached through a value that is bound already."""
        if not patterns:
            yield m
            return
        root, *rest = patterns
        if root in m.nodes:  # a value inside that is needed outside as well
            reached = replace(m, outputs=(*m.outputs, m.nodes[root].outputs[root.output]))
            yield from self.further_roots(tuple(rest), reached)
            return
        for node in _users_of_bound(root, m):
            for bound in self.op(root, node, m):
                reached = replace(bound, outputs=(*bound.outputs, node.outputs[root.output]))
                yield from self.further_roots(tuple(rest), reached)
        self.fail(m, "op-type", root.op_type, "no such consumer", m.root, root.source)

    def value(self, p: Pattern | None, v: ir.Value | None, m: Match, near: Op) -> Iterator[Match]:
        if isinstance(p, Either):
            for tag, choice in p.choices.items():
                yield from self.value(choice, v, replace(m, tags={**m.tags, p.name: tag}), near)
        elif p is None or v is None:
            if p is None and v is None:
                yield m
            else:
                expected = "no input" if p is None else "an input"
                self.fail(m, "optional-input", expected, v, v, near.source)
        elif isinstance(p, Var):
            if m.values.get(p.name, v) is v:
                yield m.with_value(p.name, v)
            else:
                self.fail(m, "same-value", m.values[p.name], v, v, near.source)
        elif isinstance(p, Const):
            if not _holds(p, v):
                self.fail(m, "constant", p.value, v, v, near.source)
            elif not isinstance(p.value, tuple) and widens(v, m.nodes[near]):
                self.fail(m, "rank", "a scalar of no higher rank than what it meets", v, v, near.source)
            else:
                yield m
        elif (node := v.producer()) is None or v.index() != p.output:
            self.fail(m, "op-type", p.op_type, v, v, p.source)
        else:
            yield from self.op(p, node, m)

    def op(self, p: Op, node: ir.Node, m: Match) -> Iterator[Match]:
        if p in m.nodes:
            if m.nodes[p] is node:
                yield m
            else:
                self.fail(m, "same-node", m.nodes[p].name, node.name, node, p.source)
            return
        if (node.op_type, node.domain) != (p.op_type, p.domain):
            return self.fail(m, "op-type", p.op_type, node.op_type, node, p.source)
        bound = self.attributes(p, node, m)
        if bound is None:
            return
        given = list(node.inputs) + [None] * (len(p.inputs) - len(node.inputs))
        if len(given) > len(p.inputs):
            return self.fail(m, "arity", f"{len(p.inputs)} inputs", f"{len(given)} inputs", node, p.source)
        bound = bound.with_node(p, node)
        for order in _orders(p, given):
            yield from self.inputs(p, order, 0, bound)

    def attributes(self, p: Op, node: ir.Node, m: Match) -> Match | None:
        remembered = dict(m.attributes)
        for name, expected in p.attributes.items():
            found = attribute(node, name)
            if isinstance(expected, AttrVar):
                remembered[expected.name] = found
            elif found != expected:
                self.fail(m, "attribute", f"{name}={expected}", f"{name}={found}", node, p.source)
                return None
        return replace(m, attributes=remembered) if p.attributes else m

    def inputs(self, p: Op, given: list[ir.Value | None], i: int, m: Match) -> Iterator[Match]:
        if i == len(given):
            yield m
            return
        for bound in self.value(p.inputs[i], given[i], m, p):
            yield from self.inputs(p, given, i + 1, bound)


def _orders(p: Op, given: list[ir.Value | None]) -> list[list[ir.Value | None]]:
    """The orders of operands to try: first the one with constants where the pattern has them, whose failure tells."""
    if p.op_type not in COMMUTATIVE or len(given) != 2:
        return [given]

    def clashes(order: list[ir.Value | None]) -> int:
        return sum(isinstance(i, Const) and constant(v) is None for i, v in zip(p.inputs, order, strict=True))

    return sorted([given, given[::-1]], key=clashes)


def _users_of_bound(root: Op, m: Match) -> list[ir.Node]:
    bound = [m.values.get(p.name) for p in root.inputs if isinstance(p, Var)]
    bound += [m.nodes[p].outputs[p.output] for p in root.inputs if isinstance(p, Op) and p in m.nodes]
    users = [user for v in bound if v is not None for user, _ in v.uses()]
    taken = {(node, p.output) for p, node in m.nodes.items()}  # another output of a node is another root
    candidates = [n for n in dict.fromkeys(users) if n.op_type == root.op_type and root.output < len(n.outputs)]
    return [n for n in candidates if (n, root.output) not in taken]


def _refusal(m: Match, where: Sequence[Requirement], stays: Stays | None) -> Mismatch | None:
    if (escape := _escape(m, stays)) is not None:
        return escape
    whys = (requirement(m) for requirement in where)
    why = next((why for why in whys if why is not None), None)
    return None if why is None else replace(why, matched=len(m.nodes))


def _escape(m: Match, stays: Stays | None) -> Mismatch | None:
    """A value that something outside the match still needs, and that may not stay for it."""
    inside = set(m.nodes.values())
    for p, node in m.nodes.items():
        for v in node.outputs:
            if v in m.outputs:
                continue
            outside = [user.name for user, _ in v.uses() if user not in inside]
            if (outside or v.is_graph_output()) and not (stays is not None and stays(v)):
                users = ", ".join(map(str, outside)) or "a graph output"
                return Mismatch("escapes", f"{v.name} used only inside", users, v, p.source, len(inside))
    return None


def _holds(p: Const, v: ir.Value) -> bool:
    if not isinstance(p.value, tuple):
        found, rounding = scalar(v), 0.0 if v.dtype is None else _ROUNDING.get(v.dtype, 0.0)
        return found is not None and math.isclose(found, p.value, rel_tol=max(p.rel_tol, rounding))
    tensor = constant(v)
    if tensor is None or not readable(tensor):
        return False
    return tensor.shape.rank() == 1 and tuple(tensor.numpy().tolist()) == p.value
