"""The way back of a name table: our tensors under the names that a checkpoint of the family has."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from onnxsmith.models.names import NameTable

_GROUP = re.compile(r"\((?!\?)([^()]*)\)")  # one that is captured
_CHOICE = re.compile(r"\(\?:([^()]*)\)(\??)")  # one that is not, which may be optional


def spelled(table: NameTable, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the checkpoint's names: what ``table`` would read as ``ours``, without those that it has no name for.

    A place that several names can have gets the first that the table lists. Of what a pattern leaves open, the prefix
    of the whole model is written and other optional parts are not.
    """
    theirs: dict[str, Tensor] = {}
    placed: set[str] = set()
    for pattern, names in table.rename.items():
        stacked = (names,) if isinstance(names, str) else names
        first = _matcher(pattern, stacked[0])
        for match in filter(None, map(first.fullmatch, ours.keys() - placed)):
            parts = [_expand(template, match) for template in stacked]
            whole = torch.cat([ours[part] for part in parts]) if len(parts) > 1 else ours[parts[0]]
            name = _spell(pattern, match)
            turned = any(re.fullmatch(one, name) for one in table.transposed)
            theirs[name] = whole.t().contiguous() if turned else whole
            placed.update(parts)
    return theirs


def _matcher(pattern: str, name: str) -> re.Pattern[str]:
    """A pattern for our names: the template ``name`` with each group of ``pattern`` in its place, named by number."""
    groups = _GROUP.findall(pattern)
    literal = re.split(r"\\(\d)", name)  # every other part is the number of a group
    parts = [
        re.escape(text) if i % 2 == 0 else rf"(?P<g{text}>{groups[int(text) - 1]})" for i, text in enumerate(literal)
    ]
    return re.compile("".join(parts))


def _expand(template: str, match: re.Match[str]) -> str:
    return re.sub(r"\\(\d)", lambda number: match[f"g{number[1]}"], template)


def _spell(pattern: str, match: re.Match[str]) -> str:
    """The simplest name that ``pattern`` matches with these groups."""
    numbers = iter(range(1, 10))
    text = _GROUP.sub(lambda _: match[f"g{next(numbers)}"], pattern)
    text = _CHOICE.sub(lambda choice: "" if choice[2] and choice.start() else choice[1].split("|")[0], text)
    return text.split("|")[0].replace("\\", "")
