"""The rewriter: the only place that changes a graph. Build, replace, name, record, in one step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import common_module, module_of, stamp
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.rule import Rule


@dataclass(frozen=True)
class Site:
    """Where a rule fired: enough to name it again after the pass is run anew on the same graph."""

    rule: str
    output: str


@dataclass
class Rewriter:
    """Applies rules to every graph of a model until none fires; :meth:`missed` then tells what is left.

    ``denied`` sites are left alone: that is how a rewrite that verification rejected is rolled back.
    """

    rules: Sequence[Rule]
    denied: Collection[Site] = ()
    remarks: list[Remark] = field(default_factory=list)
    applied: list[Site] = field(default_factory=list)
    _imports: MutableMapping[str, int] = field(default_factory=dict)

    def __call__(self, model: ir.Model) -> bool:
        """Rewrite in place. Returns whether this call changed anything."""
        names, before = Names(model), len(self.applied)
        self._imports = model.opset_imports
        by_root = defaultdict(list)
        for rule in self.rules:
            by_root[rule.roots[0].op_type, rule.roots[0].domain].append(rule)
        while sum(self._sweep(graph, by_root, names) for graph in _graphs(model)):
            pass
        return len(self.applied) > before

    def missed(self, model: ir.Model) -> list[Remark]:
        """One remark for every anchor that is left."""
        return [remark for graph in _graphs(model) for remark in missed(self.rules, graph)]

    def _sweep(self, graph: ir.Graph, by_root: dict[tuple[str, str], list[Rule]], names: Names) -> bool:
        changed = False
        for node in list(graph):
            if node.graph is not graph:  # removed by a rewrite of this sweep
                continue
            for rule in by_root.get((node.op_type, node.domain), ()):
                if self._apply(rule, node, names):
                    changed = True
                    break
        return changed

    def _apply(self, rule: Rule, node: ir.Node, names: Names) -> bool:
        if self.denied and Site(rule.name, str(node.outputs[0].name)) in self.denied:
            return False
        found = rule.match(node)
        if isinstance(found, Mismatch):
            return False
        site = Site(rule.name, str(found.outputs[0].name))
        for domain in replace(found, rule, names):
            self._imports.setdefault(domain, 1)
        self.applied.append(site)
        self.remarks.append(Remark("applied", rule.name, site.output, common_module(found.nodes.values())))
        return True


def _graphs(model: ir.Model) -> list[ir.Graph]:
    return [*model.graphs(), *(f.graph for f in model.functions.values())]


def replace(found: Match, rule: Rule, names: Names) -> set[str]:
    """Put what the rule builds in place of what it matched; the old output names stay.

    Returns the operator domains of the new nodes, which the model must import.
    """
    graph = found.root.graph
    assert isinstance(graph, ir.Graph)
    op, built = rule.build(found)
    assert len(built) == len(found.outputs), f"{rule.name} must return one value per pattern root"
    old = list(dict.fromkeys(found.nodes.values()))
    stamp(op.nodes, rule.name, dict.fromkeys([*old, *op.origins]))
    names.adopt(graph, op)
    for before, after in zip(found.outputs, built, strict=True):
        substitute(before, after)
    last = _last(graph, [v.producer() for v in found.outputs])
    if last is not None:
        graph.insert_after(last, op.nodes)
    graph.remove(_unneeded(old), safe=True)
    if len(found.outputs) > 1:
        graph.sort()  # a user of one output may stand before the last root
    return {node.domain for node in op.nodes}


def _unneeded(old: Sequence[ir.Node]) -> list[ir.Node]:
    """The nodes that nobody reads but each other: what others share stays."""
    left = set(old)
    while kept := {n for n in left if any(_is_read(v, but=left) for v in n.outputs)}:
        left -= kept
    return [n for n in old if n in left]


def _is_read(v: ir.Value, but: Collection[ir.Node]) -> bool:
    return v.is_graph_output() or any(user not in but for user, _ in v.uses())


def substitute(before: ir.Value, after: ir.Value) -> None:
    """Let every user of ``before`` use ``after``, which takes over its type, shape and name if it is new."""
    producer = after.producer()
    if producer is not None and producer.graph is None:
        after.type, after.shape = before.type, before.shape
        after.name, before.name = before.name, f"{before.name}.replaced"
    elif before.is_graph_output():
        raise AssertionError("a rewrite of a graph output builds a new value, so that its name can stay")
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)


def _last(graph: ir.Graph, nodes: Sequence[ir.Node | None]) -> ir.Node | None:
    wanted = {n for n in nodes if n is not None}
    if len(wanted) == 1:
        return wanted.pop()
    return next((n for n in reversed(graph) if n in wanted), None)


def missed(rules: Sequence[Rule], graph: ir.Graph) -> Iterator[Remark]:
    """One remark for every anchor that is left: the rule's furthest mismatch at any node downstream of it."""
    for rule in rules:
        if not rule.anchor:
            continue
        for anchor in [n for n in graph if n.op_type == rule.anchor]:
            whys = [w for n in _downstream(anchor) if isinstance(w := rule.match(n), Mismatch)]
            if whys:
                why = max(whys, key=lambda w: w.matched)
                yield describe("missed", rule.name, anchor, why)


def describe(kind: str, rule: str, node: ir.Node, why: Mismatch) -> Remark:
    """A remark with the mismatch written out, since the graph it points into will change."""
    return Remark(kind, rule, str(node.name), module_of(node), why.code, str(why), why.where, why.line, why.matched)


def _downstream(anchor: ir.Node, depth: int = 8) -> list[ir.Node]:
    """The anchor and the nodes within ``depth`` consumers of it; no pattern spans more below its anchor."""
    seen, frontier = {anchor: None}, [anchor]
    for _ in range(depth):
        frontier = [u for n in frontier for v in n.outputs for u, _ in v.uses() if u not in seen]
        seen.update(dict.fromkeys(frontier))
        if len(seen) > 64:
            break
    return list(seen)
