"""Where every node of an export went: each is to be in exactly one group, and what was made is to say of what."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir

from onnxsmith.compiler.compare.through import Account, account, prepared
from onnxsmith.compiler.load import load_model

_FUSED = ("Attention", "MultiHeadAttention", "GroupQueryAttention")


def complaints(original: Path, result: Path) -> list[str]:
    """What is wrong with the account that a result's recorded rewrites give of the original; [] where nothing is."""
    before, after = prepared(load_model(original)), prepared(load_model(result))
    found = account(before, after)
    made = [group for group in found.groups if group.fate == "rewritten"]
    wrong = [] if found.exact and made else ["no rewrite is recorded"]
    wrong += [f"{group.made[0]} was made by no rule" for group in made if not group.rules]
    return wrong + unaccounted(before, after, found) + _without_softmax(before, after, found)


def unaccounted(original: ir.Model, variant: ir.Model, found: Account) -> list[str]:
    """Original nodes that are not in exactly one group, and new ones that are neither made by one nor added."""
    origins = Counter(name for group in found.groups for name in group.origins)
    made = {name for group in found.groups for name in group.made}
    names = {str(n.name) for n in original.graph.all_nodes()}
    wrong = [f"{name} is in {origins[name]} groups" for name in sorted(names | set(origins)) if origins[name] != 1]
    wrong += [f"{name} is no node of the original" for name in sorted(set(origins) - names)]
    standing = {str(n.name) for n in variant.graph.all_nodes()}
    wrong += [f"{name} is both made and added" for name in sorted(made & set(found.added))]
    wrong += [f"{name} stands for nothing" for name in sorted(standing - made - set(found.added))]
    wrong += [f"{name} is no node of the result" for name in sorted((made | set(found.added)) - standing)]
    return wrong + [
        f"{group.fate} with {len(group.made)} new nodes: {group.origins[0]}"
        for group in found.groups
        if (group.fate in ("kept", "rewritten")) != bool(group.made)
    ]


def _without_softmax(original: ir.Model, variant: ir.Model, found: Account) -> list[str]:
    """What became a fused attention has a softmax among its nodes."""
    operators = {str(n.name): n.op_type for n in variant.graph.all_nodes()}
    softmax = {str(n.name) for n in original.graph.all_nodes() if n.op_type in ("Softmax", *_FUSED)}
    return [
        f"{name} was made of no softmax"
        for group in found.groups
        if group.fate == "rewritten" and not softmax.intersection(group.origins)
        for name in group.made
        if operators[name] in _FUSED
    ]
