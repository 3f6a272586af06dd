"""Folding nodes by the module that they belong to, so that twelve layers read as one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.engine.provenance import module_of

_PARTS = 2  # of a path without a layer's number
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def path_of(node: ir.Node) -> str:
    """The path of the node's module: as recorded, or as TorchScript spells it in names ("/encoder/layer.0/Add")."""
    if recorded := module_of(node):
        return "" if recorded.startswith("_") else recorded  # the exporter's own helpers belong to no module
    scope, slash, _ = str(node.name).strip("/").rpartition("/")
    return scope.replace("/", ".") if slash else ""


def block_of(path: str) -> str:
    """The block of a module path: up to the part after a layer's number, "encoder.layer.3.attention"."""
    parts = path.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return ".".join(parts[: _PARTS if number is None else number + 2])


@dataclass(frozen=True)
class Block:
    """What became of a block: how many nodes it had, what operators it has, and by which rules.

    ``name`` has "*" for the number of a layer where ``times`` layers have the same.
    """

    name: str
    before: int
    after: tuple[tuple[str, int], ...]
    rules: tuple[str, ...]
    times: int = 1

    def __str__(self) -> str:
        after = ", ".join(op if n == 1 else f"{n} {op}" for op, n in self.after)
        return f"{self.name or 'the rest'}: {self.before} nodes -> {after or 'nothing'}"


def blocks(
    paths: Mapping[str, str],
    parts: Iterable[tuple[Sequence[str], Sequence[str], Sequence[str]]],
    ops: Mapping[str, str],
) -> list[Block]:
    """Groups folded by block, and equal blocks of several layers folded into one.

    Args:
        paths: The module path of every original node.
        parts: Names of original nodes, of the new ones that stand for them, and the rules.
        ops: The operator of every new node.
    """
    before, after, rules = Counter[str](), dict[str, dict[str, None]](), dict[str, dict[str, None]]()
    for origins, made, by in parts:
        home = Counter(block_of(paths[name]) for name in origins).most_common(1)[0][0]
        for name in origins:
            before[block_of(paths[name])] += 1
        after.setdefault(home, {}).update(dict.fromkeys(made))
        rules.setdefault(home, {}).update(dict.fromkeys(by))
    found = [
        Block(name, n, _counted(after.get(name, {}), ops), tuple(sorted(rules.get(name, {}))))
        for name, n in before.items()
    ]
    return _folded(found)


def _counted(made: Iterable[str], ops: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(ops[name] for name in made).most_common())


def _folded(found: Iterable[Block]) -> list[Block]:
    """Blocks that differ in a layer's number alone, as one."""
    alike: dict[Block, int] = {}
    single: dict[Block, Block] = {}
    for block in found:
        key = Block(_NUMBER.sub("*", block.name, count=1), block.before, tuple(sorted(block.after)), block.rules)
        alike[key] = alike.get(key, 0) + 1
        single.setdefault(key, block)
    return [
        single[key] if times == 1 else Block(key.name, key.before, single[key].after, key.rules, times)
        for key, times in alike.items()
    ]
