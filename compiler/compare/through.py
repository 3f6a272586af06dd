"""The difference of two graphs through the rewrites: what became of every node of the original.

A model that onnxsmith wrote says of each new node which original nodes it stands for and by which rules; a file that
says nothing is matched by names, shapes and values instead. Either way every original node is in exactly one group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxsmith.compiler.bodies import reads
from onnxsmith.compiler.compare.matching import matched
from onnxsmith.compiler.compare.modules import path_of
from onnxsmith.errors import BadInput
from onnxsmith.passes.canonicalize import convert
from onnxsmith.passes.engine.names import name_nodes
from onnxsmith.passes.engine.provenance import common_module, origins, rules_of

Fate = Literal["kept", "rewritten", "folded", "unneeded"]


@dataclass(frozen=True)
class Group:
    """Original nodes that share their fate, and the new nodes that stand for them.

    "kept" nodes are there under their own names, "rewritten" ones went into ``made`` by ``rules`` (none known where
    the file records none), "folded" ones computed constants, and no output needs the "unneeded" ones any more (views
    and lengths, mostly). ``module`` is the path of the module that they belong to, or "".
    """

    fate: Fate
    origins: tuple[str, ...]
    made: tuple[str, ...]
    rules: tuple[str, ...]
    module: str


@dataclass(frozen=True)
class Account:
    """All nodes of the original, each in one group, and nodes of the variant that stand for none: ``added``.

    ``exact`` says that the variant recorded its rewrites; else it was matched.
    """

    exact: bool
    groups: tuple[Group, ...]
    added: tuple[str, ...]


def prepared(model: ir.Model) -> ir.Model:
    """The model with its nodes named as the compiler names them: inlined, raised to its opset. In place."""
    if model.functions:
        model = common.InlinePass()(model).model
    with suppress(BadInput):  # of an opset that cannot be raised: the nodes as they are
        model = convert(model)
    name_nodes(model)
    return model


def account(original: ir.Model, variant: ir.Model, twins: Mapping[str, str] | None = None) -> Account:
    """What became of every node of ``original`` in ``variant``; both are :func:`prepared`.

    Args:
        original: The graph that rewrites began with.
        variant: What they led to.
        twins: Values of the variant that are values of the original, by name; used where nothing is recorded.
    """
    old = {str(n.name): n for n in original.graph.all_nodes()}
    new = {str(n.name): n for n in variant.graph.all_nodes()}
    exact = any(rules_of(n) for n in new.values())
    kept = {name for name, n in new.items() if name in old and not rules_of(n) and _alike(n, old[name])}
    stands_for = _recorded(new, kept) if exact else matched(original, variant, kept, twins or {})
    makers: dict[str, list[str]] = defaultdict(list)
    for name, names in stands_for.items():
        for origin in names:
            if origin in old:
                makers[origin].append(name)
    groups = tuple(
        _group(fate, names, list(dict.fromkeys(n for name in names for n in _made(fate, name, makers))), old, new)
        for fate, names in _parted(old, kept, makers, _constant(original))
    )
    standing = kept | {name for made in makers.values() for name in made}
    return Account(exact, groups, tuple(name for name in new if name not in standing))


def _alike(a: ir.Node, b: ir.Node) -> bool:
    return a.op_type == b.op_type and a.domain == b.domain


def _recorded(new: Mapping[str, ir.Node], kept: set[str]) -> dict[str, list[str]]:
    return {name: origins(node) for name, node in new.items() if name not in kept and rules_of(node)}


def _fate(name: str, kept: set[str], makers: Mapping[str, list[str]], constant: set[str]) -> Fate:
    if name in kept:
        return "kept"
    if name in makers:
        return "rewritten"
    return "folded" if name in constant else "unneeded"


def _parted(
    old: Mapping[str, ir.Node], kept: set[str], makers: Mapping[str, list[str]], constant: set[str]
) -> list[tuple[Fate, list[str]]]:
    """The names of ``old`` in disjoint parts of one fate: what went into the same new nodes goes together."""
    parts: dict[tuple[Fate, str], list[str]] = defaultdict(list)
    leaders = _leaders(makers)
    for name, node in old.items():
        fate = _fate(name, kept, makers, constant)
        key = {"kept": name, "rewritten": leaders.get(name, "")}.get(fate, path_of(node))
        parts[fate, key].append(name)
    return [(fate, names) for (fate, _), names in parts.items()]


def _leaders(makers: Mapping[str, list[str]]) -> dict[str, str]:
    """For each name one that stands for all that share new nodes with it, directly or by way of others."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while (up := above.setdefault(name, name)) != name:
            above[name] = name = above.setdefault(up, up)
        return name

    for name, made in makers.items():
        for node in made:
            above[top(name)] = top(f"new {node}")
    return {name: top(name) for name in makers}


def _made(fate: Fate, name: str, makers: Mapping[str, list[str]]) -> list[str]:
    return [name] if fate == "kept" else makers.get(name, []) if fate == "rewritten" else []


def _group(
    fate: Fate, names: list[str], made: list[str], old: Mapping[str, ir.Node], new: Mapping[str, ir.Node]
) -> Group:
    rules = dict.fromkeys(rule for name in made for rule in rules_of(new[name]))
    return Group(fate, tuple(names), tuple(made), tuple(rules), _module([old[name] for name in names]))


def _module(nodes: Iterable[ir.Node]) -> str:
    nodes = list(nodes)
    return common_module(nodes) or path_of(nodes[0])


def _constant(model: ir.Model) -> set[str]:
    """Names of nodes that no input of the graph reaches."""
    varying = set(model.graph.inputs)
    found = set()
    for node in model.graph.all_nodes():
        if varying.intersection(reads(node)) or any(v.is_graph_input() and not v.is_initializer() for v in reads(node)):
            varying.update(node.outputs)
        else:
            found.add(str(node.name))
    return found
