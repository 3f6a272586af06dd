"""Two graphs side by side, folded by block: what stands for the same carries the same number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxsmith.compiler.compare.modules import block_of
from onnxsmith.compiler.compare.page.text import clean
from onnxsmith.compiler.compare.structure import Changes, Node

_REST = "the rest"


@dataclass(frozen=True)
class Row:
    """A node; ``group`` is the number that it shares with what it stands for, -1 where it stands for nothing."""

    name: str
    operator: str
    shape: str
    group: int
    fate: str
    rules: str


@dataclass(frozen=True)
class Fold:
    """The rows of one block of one side; ``key`` is the block's number on both sides."""

    key: int
    title: str
    rows: tuple[Row, ...]


def sides(changes: Changes) -> tuple[list[Fold], list[Fold]]:
    """The folds of the original and of the variant, in the order of their first nodes."""
    of_old: dict[str, int] = {}
    of_new: dict[str, int] = {}
    homes: dict[int, str] = {}
    told: dict[int, tuple[str, str]] = {-1: ("added", "")}
    paths = {node.name: node.module for node in changes.before}
    for number, group in enumerate(changes.account.groups):
        of_old |= dict.fromkeys(group.origins, number)
        of_new |= dict.fromkeys(group.made, number)
        homes[number] = next((paths[name] for name in group.origins if paths[name]), "")
        told[number] = (group.fate, ", ".join(group.rules))
    keys: dict[str, int] = {}
    before = _folds(changes.before, of_old, {}, told, keys)
    return before, _folds(changes.after, of_new, homes, told, keys)


def _folds(
    nodes: Sequence[Node],
    groups: Mapping[str, int],
    homes: Mapping[int, str],
    told: Mapping[int, tuple[str, str]],
    keys: dict[str, int],
) -> list[Fold]:
    """``homes`` are the modules of what nodes stand for, where their own is not known."""
    found: dict[str, list[Row]] = {}
    for node in nodes:
        number = groups.get(node.name, -1)
        block = block_of(node.module or homes.get(number, "")) or _REST
        fate, rules = told[number]
        row = Row(clean(node.name), clean(node.operator), clean(node.shape), number, fate, clean(rules))
        found.setdefault(block, []).append(row)
    return [Fold(keys.setdefault(block, len(keys)), clean(block), tuple(rows)) for block, rows in found.items()]
