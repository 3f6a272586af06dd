"""Which original nodes, and which PyTorch modules, a node stands for: kept in the node's own metadata."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable

import onnx_ir as ir

RULES = "onnxsmith.rules"
ORIGIN = "onnxsmith.from"
MODULE = "onnxsmith.module"
_SCOPES = "pkg.torch.onnx.name_scopes"


def rules_of(node: ir.Node) -> list[str]:
    """The rules that led to the node, first to last; none for a node of the original graph."""
    recorded = node.metadata_props.get(RULES)
    return json.loads(recorded) if recorded else []


def rule_of(node: ir.Node) -> str | None:
    """The rule that built the node, or None for a node of the original graph."""
    return next(reversed(rules_of(node)), None)


def origins(node: ir.Node) -> list[str]:
    """Names of the original nodes that this one stands for; an original node stands for itself."""
    recorded = node.metadata_props.get(ORIGIN)
    return json.loads(recorded) if recorded else [str(node.name)]


def module_of(node: ir.Node) -> str:
    """The path of the PyTorch module that the node belongs to, as in ``named_modules()``, or ''."""
    if (recorded := node.metadata_props.get(MODULE)) is not None:
        return recorded
    scopes = node.metadata_props.get(_SCOPES)
    if not scopes:
        return ""
    try:
        path = ast.literal_eval(scopes)  # the exporter writes a Python list of strings
    except (ValueError, SyntaxError):
        return ""
    # The last scope is the operator itself, the ones before it are nested module paths.
    return str(path[-2]) if isinstance(path, list) and len(path) > 1 else ""


def common_module(nodes: Iterable[ir.Node]) -> str:
    """The innermost module path that all the given nodes (those that have one) share."""
    paths = [m.split(".") for node in nodes if (m := module_of(node))]
    if not paths:
        return ""
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def stamp(new: Iterable[ir.Node], rule: str, old: Iterable[ir.Node]) -> None:
    """Record on every new node the rule and everything that the removed nodes stood for."""
    old = list(old)
    rules = json.dumps(list(dict.fromkeys([*(r for node in old for r in rules_of(node)), rule])))
    names = json.dumps(list(dict.fromkeys(name for node in old for name in origins(node))))
    module = common_module(old)
    for node in new:
        node.metadata_props[RULES] = rules
        node.metadata_props[ORIGIN] = names
        if module:
            node.metadata_props[MODULE] = module
