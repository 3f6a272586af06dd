"""Whether a graph hangs together: every name defined once, no circles, operators that the stamped opset has.

onnx_ir makes up an input for a name that nobody defines, and onnx's checker says in several lines what is wrong and
never what to do. Nodes out of order are no fault: the loader sorts them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeVar

import onnx

from onnxsmith.errors import BadInput
from onnxsmith.passes.canonicalize.opset import ORT_OPERATORS

_STANDARD = ("", "ai.onnx")
_K = TypeVar("_K")


def check(proto: onnx.ModelProto, file: Path) -> None:
    """Raises BadInput, which names ``file`` and the first fault, for a graph or function that cannot mean anything."""
    for fault in _faults(proto):
        raise BadInput(f"{file}: {fault}; export the model again")


def _faults(proto: onnx.ModelProto) -> Iterator[str]:
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    calls = {key: {_key(n) for n in _nodes(f.node)} & set(functions) for key, f in functions.items()}
    if circle := _circle(calls):
        yield f"functions call each other in a circle: {' -> '.join('.'.join(filter(None, key)) for key in circle)}"
    versions = _versions(proto.opset_import)
    yield from _operator_faults(_nodes(proto.graph.node), versions, functions)
    yield from _graph_faults(proto.graph, frozenset())
    for function in proto.functions:
        # A body may leave imports to the model: onnxruntime and onnx_ir both accept it.
        own = {**versions, **_versions(function.opset_import)}
        yield from _operator_faults(_nodes(function.node), own, functions)
        yield from _body_faults(function.node, function.output, set(function.input))


def _key(node: onnx.NodeProto) -> tuple[str, str, str]:
    return node.domain, node.op_type, node.overload


def _versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {"" if i.domain in _STANDARD else i.domain: i.version for i in imports}


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for a in node.attribute for graph in [*([a.g] if a.HasField("g") else []), *a.graphs]]


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes and those of their bodies."""
    for node in nodes:
        yield node
        for body in _bodies(node):
            yield from _nodes(body.node)


def _operator_faults(
    nodes: Iterable[onnx.NodeProto], versions: Mapping[str, int], functions: Mapping[tuple[str, str, str], object]
) -> Iterator[str]:
    for node in nodes:
        domain = "" if node.domain in _STANDARD else node.domain
        if _key(node) in functions:
            continue
        if domain not in versions:
            yield f"{_called(node)} is of domain {domain or 'ai.onnx'!r}, which opset_import does not name"
        elif domain or node.op_type in ORT_OPERATORS:
            continue
        elif (since := _first_opsets().get(node.op_type)) is None:
            yield f"{_called(node)} is an operator that no ONNX opset has"
        elif since > versions[""]:
            stamped = f"the file is stamped opset {versions['']} (torch.onnx does that when asked for 26: ask for less)"
            yield f"{_called(node)} needs opset {since}, and {stamped}"


@functools.cache
def _first_opsets() -> dict[str, int]:
    """For each of ONNX's own operators the first opset that has it."""
    found: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            found[schema.name] = min(schema.since_version, found.get(schema.name, schema.since_version))
    return found


def _graph_faults(graph: onnx.GraphProto, outer: frozenset[str]) -> Iterator[str]:
    given = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    given |= {t.values.name for t in graph.sparse_initializer}
    yield from _body_faults(graph.node, [v.name for v in graph.output], given, outer)


def _body_faults(
    nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], given: set[str], outer: frozenset[str] = frozenset()
) -> Iterator[str]:
    makers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in filter(None, node.output):
            if makers.setdefault(name, i) != i or name in given:
                yield f"{name!r} is defined twice, the second time by {_called(node)}"
    scope = outer | given | set(makers)
    for node in nodes:
        if missing := next((name for name in node.input if name and name not in scope), None):
            yield f"{_called(node)} reads {missing!r}, which nothing defines"
        for body in _bodies(node):
            yield from _graph_faults(body, scope)
    if missing := next((name for name in outputs if name not in scope), None):
        yield f"output {missing!r} is given by no node"
    needs = {i: {makers[name] for name in _reads(node) if name in makers} for i, node in enumerate(nodes)}
    if circle := _circle(needs):
        yield f"nodes need each other's results in a circle: {' -> '.join(_called(nodes[i]) for i in circle)}"


def _reads(node: onnx.NodeProto) -> set[str]:
    """The names that a node and its bodies take from the graph around it."""
    names = set(node.input)
    for body in _bodies(node):
        inside = {v.name for v in body.output}.union(*map(_reads, body.node))
        own = {v.name for v in body.input} | {t.name for t in body.initializer}
        names |= inside - own - {name for n in body.node for name in n.output}
    return names


def _circle(needs: Mapping[_K, Iterable[_K]]) -> list[_K]:
    """Keys that need each other, the first one again at the end; none when there is no circle."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as e:
        return list(e.args[1])
    return []


def _called(node: onnx.NodeProto) -> str:
    name = node.name or next(filter(None, node.output), "")
    return f"node {name!r} ({node.op_type})"
