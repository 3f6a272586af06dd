"""Views: a chain of Reshape, Transpose, Squeeze, Unsqueeze and Flatten in its shortest form, spelled in one way.

Exporters swap the last two axes of keys through a detour over three dimensions, merge heads in two steps, and
compute every target shape at run time. All such chains only regroup and permute the *atoms* of the source's
dimensions; the shortest chain with the same effect is at most Reshape, Transpose, Reshape, mostly with constant
targets. A Reshape that only adds or only drops dimensions of 1 is an Unsqueeze or a Squeeze.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp
from onnxsmith.passes.engine.rewrite import substitute
from onnxsmith.passes.engine.values import attribute, constant
from onnxsmith.passes.shapes import ONE, Size, evaluate, product, reshaped, sizes

VIEWS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})
NAME = "shortest-view"
Groups = list[list["Atom"]]
Targets = dict[tuple[Size, ...], ir.Value]
Step = tuple[str, object]  # Transpose with its permutation, Reshape with its target, Squeeze or Unsqueeze with its axes


@dataclass(eq=False)
class Atom:
    """A part of one source dimension that stays whole through the chain; dimensions of 1 have no atoms."""

    size: Size
    parts: tuple[Atom, Atom] | None = None

    def leaves(self) -> list[Atom]:
        return [self] if self.parts is None else [leaf for part in self.parts for leaf in part.leaves()]

    def split(self, first: Size) -> None:
        rest = self.size // first
        assert rest is not None
        self.parts = (Atom(first), Atom(rest))


def shorten(model: ir.Model) -> bool:
    """Replace view chains in place. Returns whether anything changed."""
    names = Names(model)
    # Whole chains before their beginnings: the last view comes first.
    views = [node for graph in model.graphs() for node in reversed(graph) if is_view(node)]
    return sum(_shorten_at(node, names) for node in views) > 0


def is_view(node: ir.Node | None) -> bool:
    return node is not None and node.op_type in VIEWS and not node.domain


def _shorten_at(end: ir.Node, names: Names) -> bool:
    graph = end.graph
    if graph is None:
        return False
    chain = _chain(end)
    best: list[Step] | None = None
    while chain and best is None:
        best, used = _shortest(chain), chain
        chain = chain[1:]  # an unknown shape further up leaves the lower part of the chain
    if best is None or not _better(best, used):
        return False
    op, value = Builder(), used[0].inputs[0]
    for kind, argument in best:
        transposes = kind == "Transpose"
        value = op.Transpose(value, perm=argument) if transposes else _view(op, kind, value, argument)
    if not op.nodes and end.outputs[0].is_graph_output():
        value = op.Identity(value)  # carries the output's name until a sweep gives it to the source
    stamp(op.nodes, NAME, used)
    assert isinstance(graph, ir.Graph)
    names.adopt(graph, op)
    substitute(end.outputs[0], value)  # type: ignore[arg-type]
    graph.insert_after(end, op.nodes)
    for node in reversed(used):
        if node.outputs[0].uses() or node.outputs[0].is_graph_output():
            break
        graph.remove(node, safe=True)
    return True


def _view(op: Builder, kind: str, value: ir.Value | None, argument: object) -> ir.Value:
    hint = "view_shape" if kind == "Reshape" else "view_axes"
    given = argument if isinstance(argument, ir.Value) else op.constant(argument, hint, "int64")
    return getattr(op, kind)(value, given)  # type: ignore[no-any-return]


def _chain(end: ir.Node) -> list[ir.Node]:
    chain = [end]
    while is_view(producer := chain[0].inputs[0].producer() if chain[0].inputs[0] is not None else None):
        chain.insert(0, producer)  # type: ignore[arg-type]
    return chain


def _better(best: Sequence[Step], used: Sequence[ir.Node]) -> bool:
    if len(best) != len(used):
        return len(best) < len(used)
    if len(best) == 1 and _respelled(best[0], used[0]):
        return True
    # As long as before: worth it only where a computed target becomes a constant one.
    dynamic = [n for n in used if n.op_type == "Reshape" and constant(n.inputs[1]) is None]
    return bool(dynamic) and _computed(best) < len(dynamic)


def _respelled(step: Step, node: ir.Node) -> bool:
    """Whether one view is written as another operator, with other axes, or with another constant target."""
    kind, argument = step
    if kind == "Transpose" or isinstance(argument, ir.Value):
        return False
    told = constant(node.inputs[1]) if node.op_type == kind and len(node.inputs) > 1 else None
    return kind != "Reshape" if told is None else told.numpy().tolist() != argument


def _shortest(chain: Sequence[ir.Node]) -> list[Step] | None:
    """The shortest steps (kind, permutation or target) with the chain's effect, or None when it cannot be told."""
    source = sizes(chain[0].inputs[0])
    if source is None:
        return None
    start = [[] if s == ONE else [Atom(s)] for s in source]
    groups: Groups = start
    for node in chain:
        after = _follow(node, groups)
        if after is None:
            return None
        groups = after
    start, groups = _leaves(start), _leaves(groups)
    return _steps(start, groups, _absolute_targets(chain))


def _absolute_targets(chain: Sequence[ir.Node]) -> Targets:
    """The targets of Reshapes that mean the same for every source, by result: a 0 copies from the one that it had."""
    found: Targets = {}
    for node in chain:
        target = evaluate(node.inputs[1]) if node.op_type == "Reshape" else None
        result = reshaped(node) if target is not None and all(t.known != 0 for t in target) else None
        if result is not None and node.inputs[1] is not None:
            found[tuple(result)] = node.inputs[1]
    return found


def _leaves(groups: Groups) -> Groups:
    return [[leaf for atom in group for leaf in atom.leaves()] for group in groups]


def _follow(node: ir.Node, groups: Groups) -> Groups | None:
    if node.op_type == "Transpose":
        perm = attribute(node, "perm") or list(range(len(groups)))[::-1]
        return [groups[i] for i in perm]
    target = _view_target(node, groups)
    if target is None:
        return None
    return _regroup([atom for group in groups for atom in group], target)


def _view_target(node: ir.Node, groups: Groups) -> list[Size] | None:
    current = [product([a.size for a in group]) for group in groups]
    if node.op_type == "Reshape":
        return reshaped(node)
    if node.op_type == "Flatten":
        axis = attribute(node, "axis")
        return [product(current[:axis]), product(current[axis:])]
    axes = _axes(node)
    if axes is None:
        return [s for s in current if s != ONE] if node.op_type == "Squeeze" and _all_known(current) else None
    rank = len(current) + (len(axes) if node.op_type == "Unsqueeze" else 0)
    axes = [a % rank for a in axes]
    if node.op_type == "Squeeze":
        return [s for i, s in enumerate(current) if i not in axes]
    rest = iter(current)
    return [ONE if i in axes else next(rest) for i in range(rank)]


def _axes(node: ir.Node) -> list[int] | None:
    given = evaluate(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if given is None else [s.factor for s in given]


def _all_known(found: Sequence[Size]) -> bool:
    return all(s.known is not None for s in found)


def _regroup(atoms: list[Atom], target: Sequence[Size]) -> Groups | None:
    """Deal the atoms, in order, into dimensions of the target sizes; splits an atom that is too large."""
    queue = [leaf for atom in atoms for leaf in atom.leaves()]
    groups: Groups = []
    for wanted in target:
        group: list[Atom] = []
        while wanted != ONE:
            if not queue:
                return None
            atom = queue.pop(0)
            left = wanted // atom.size
            if left is None:
                if atom.size // wanted is None:
                    return None
                atom.split(wanted)
                atom, rest = atom.leaves()
                queue.insert(0, rest)
                left = ONE
            group.append(atom)
            wanted = left
        groups.append(group)
    return None if queue else groups


def _steps(start: Groups, end: Groups, targets: Targets) -> list[Step] | None:
    before = [a for group in start for a in group]
    after = [a for group in end for a in group]
    if before == after:
        return _reshape(start, end, targets)
    # Of the shortest, the one that splits, permutes and joins: as heads are spelled.
    candidates = [c for middle in ([[a] for a in before], end, start) if (c := _via(start, middle, end, targets))]
    return min(candidates, key=lambda steps: (len(steps), _computed(steps)), default=None)


def _computed(steps: Sequence[Step]) -> int:
    return sum(isinstance(argument, ir.Value) for _, argument in steps)


def _via(start: Groups, middle: Groups, end: Groups, targets: Targets) -> list[Step] | None:
    """Reshape to the middle's groups in the source's order, permute those, reshape to the end."""
    source, target = _positions(start), _positions(end)
    if not (_whole(middle, source) and _whole(middle, target)):
        return None
    first = middle if middle is start else _arrange(middle, source)
    permuted = middle if middle is end else _arrange(middle, target)
    head, tail = _reshape(start, first, targets), _reshape(permuted, end, targets)
    if head is None or tail is None:
        return None
    return [*head, ("Transpose", _permutation(first, permuted)), *tail]


def _positions(groups: Groups) -> dict[Atom, int]:
    return {atom: i for i, atom in enumerate(a for group in groups for a in group)}


def _whole(groups: Groups, position: dict[Atom, int]) -> bool:
    """Whether each group's atoms stand beside each other, in order, at these positions."""
    return all(position[b] == position[a] + 1 for g in groups for a, b in zip(g, g[1:], strict=False))


def _arrange(groups: Groups, position: dict[Atom, int]) -> Groups:
    """The groups ordered by position, dimensions of 1 in front."""
    return sorted(groups, key=lambda g: position[g[0]] if g else -1)


def _permutation(first: Groups, then: Groups) -> list[int]:
    units = [i for i, g in enumerate(first) if not g]
    where = {g[0]: i for i, g in enumerate(first) if g}
    return [where[g[0]] if g else units.pop(0) for g in then]


def _reshape(start: Groups, end: Groups, targets: Targets) -> list[Step] | None:
    """No step, dimensions of 1 added or dropped, or a Reshape: to a constant target or the chain's computed one."""
    now, wanted = _products(start), _products(end)
    if now == wanted:
        return []
    for kind, axes in (("Unsqueeze", _ones(now, wanted)), ("Squeeze", _ones(wanted, now))):
        if axes is not None:
            return [(kind, axes)]
    target, computed = [], 0
    for i, size in enumerate(wanted):
        if size.known is not None:
            target.append(size.factor)
        elif i < len(now) and now[i] == size:
            target.append(0)  # 0 copies the dimension at the same place
        else:
            target.append(-1)
            computed += 1
    if computed <= 1:
        return [("Reshape", target)]
    computed_target = targets.get(tuple(wanted))
    return None if computed_target is None else [("Reshape", computed_target)]


def _ones(short: list[Size], long: list[Size]) -> list[int] | None:
    """Where the longer one has further dimensions of 1, or None when they differ in anything else."""
    axes, rest = [], list(short)
    for axis, size in enumerate(long):
        if rest and rest[0] == size:
            rest.pop(0)
        elif size == ONE:
            axes.append(axis)
        else:
            return None
    return None if rest else axes


def _products(groups: Groups) -> list[Size]:
    return [product([a.size for a in g]) for g in groups]
