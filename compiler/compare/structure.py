"""What a variant is made of: operators, weights and sites, and what its rewrites did to the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxsmith.compiler import sites
from onnxsmith.compiler.compare.layers import captured
from onnxsmith.compiler.compare.matching import same_values
from onnxsmith.compiler.compare.modules import Block, blocks, path_of
from onnxsmith.compiler.compare.through import Account, account
from onnxsmith.compiler.inputs import Case
from onnxsmith.passes.canonicalize import infer
from onnxsmith.passes.engine.values import dims


@dataclass(frozen=True)
class Structure:
    """``size`` in bytes with external data; ``operators`` counts nodes by type, the most frequent first.

    ``weights`` are bytes by dtype, the largest first. ``sites`` counts attention, norms and activations by kind:
    how many there are as one operator, and how many in other spellings.
    """

    size: int
    nodes: int
    operators: Mapping[str, int]
    weights: Mapping[str, int]
    sites: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Node:
    """One node as it is shown; ``shape`` is that of its first output, where it is known."""

    name: str
    operator: str
    module: str
    shape: str


@dataclass(frozen=True)
class Changes:
    """What became of the reference's nodes; ``blocks`` tells it by module, ``twins`` are equal values by name.

    ``before`` and ``after`` are the nodes of both graphs, in order.
    """

    account: Account
    blocks: tuple[Block, ...]
    twins: Mapping[str, str]
    before: tuple[Node, ...]
    after: tuple[Node, ...]

    @property
    def fates(self) -> Mapping[str, int]:
        """Original nodes by fate."""
        counts = Counter[str]()
        for group in self.account.groups:
            counts[group.fate] += len(group.origins)
        return counts


def structure(model: ir.Model, path: Path) -> Structure:
    """Structure of a model whose .onnx file is at ``path``."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    operators = Counter(_operator(node) for graph in graphs for node in graph.all_nodes())
    weights = Counter[str]()
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            weights[value.const_value.dtype.name] += value.const_value.nbytes
    size = _size(model, path)
    return Structure(size, operators.total(), dict(operators.most_common()), dict(weights.most_common()), _sites(model))


def _sites(model: ir.Model) -> dict[str, tuple[int, int]]:
    known = model.clone()
    infer(known)  # an exporter need not record the shapes by which sites are told
    counts: dict[str, list[int]] = {}
    for anchor in sites.find(known):
        counts.setdefault(anchor.kind, [0, 0])[not anchor.fused] += 1
    return {kind: (fused, spelled) for kind, (fused, spelled) in counts.items()}


def _operator(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _size(model: ir.Model, path: Path) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    data = {Path(tensor.path).resolve() for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    return sum(file.stat().st_size for file in {path.resolve(), *data})


def changes(original: ir.Model, variant: ir.Model, case: Case | None) -> Changes:
    """What became of the nodes of ``original``; both are :func:`prepared`.

    A variant that records no rewrites is matched by names, and by the values on ``case`` where names do not suffice.
    """
    found, twins = account(original, variant), dict[str, str]()
    if not found.exact and case is not None and any(group.fate != "kept" for group in found.groups):
        twins = _twins(original, variant, case)
        found = account(original, variant, twins)
    paths = {str(n.name): path_of(n) for n in original.graph.all_nodes()}
    operators = {str(n.name): n.op_type for n in variant.graph.all_nodes()}
    folded = blocks(paths, [(g.origins, g.made, g.rules) for g in found.groups], operators)
    return Changes(found, tuple(folded), twins, *(tuple(map(_node, m.graph.all_nodes())) for m in (original, variant)))


def _node(node: ir.Node) -> Node:
    shape = next((dims(v) for v in node.outputs), None)
    told = " x ".join("?" if d is None else str(d) for d in shape) if shape is not None else ""
    return Node(str(node.name), _operator(node), path_of(node), told)


def _twins(original: ir.Model, variant: ir.Model, case: Case) -> dict[str, str]:
    try:
        ours, theirs = captured(variant, case), captured(original, case)
    except Exception:  # ONNX Runtime gives no value of some types out of the graph; names have to do
        return {}
    return same_values(ours, theirs)
