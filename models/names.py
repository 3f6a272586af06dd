"""How a checkpoint names its tensors: a table from its names to ours, and the tensors under ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsmith.errors import BadInput


@dataclass(frozen=True)
class Source:
    """Where one of our tensors comes from: part ``index`` of ``parts`` equal ones along the first dimension."""

    name: str
    index: int = 0
    parts: int = 1
    transposed: bool = False

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The tensor, memory-mapped as it came unless it is transposed."""
        found = tensors[self.name]
        if self.transposed:
            found = found.t().contiguous()
        return found if self.parts == 1 else found.tensor_split(self.parts)[self.index]


@dataclass(frozen=True)
class NameTable:
    """Regular expressions over the checkpoint's names, tried in order and matched whole.

    ``rename`` gives our name (with the pattern's groups), or several names for a tensor that holds them stacked.
    ``unused`` are tensors that the model does without, ``transposed`` those stored as [in, out], and ``tied`` those
    that may be repeated under several names, with the same values.
    """

    rename: Mapping[str, str | tuple[str, ...]]
    unused: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()

    def ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Source]:
        """Sources by our name. Raises BadInput for a tensor that no row knows, or two different ones for one place."""
        found: dict[str, Source] = {}
        for name in theirs:
            if _any(self.unused, name):
                continue
            for ours, source in self._one(name).items():
                first = found.setdefault(ours, source).name
                if first != name and not self._repeats(theirs, first, name):
                    raise BadInput(f"the checkpoint has {first!r} and {name!r} for one place; keep one")
        return found

    def _repeats(self, theirs: Mapping[str, Tensor], first: str, second: str) -> bool:
        return _any(self.tied, first) and _any(self.tied, second) and torch.equal(theirs[first], theirs[second])

    def _one(self, name: str) -> dict[str, Source]:
        for pattern, ours in self.rename.items():
            if (match := re.fullmatch(pattern, name)) is not None:
                names = (ours,) if isinstance(ours, str) else ours
                turned = _any(self.transposed, name)
                return {match.expand(n): Source(name, i, len(names), turned) for i, n in enumerate(names)}
        raise BadInput(f"the checkpoint has a tensor {name!r} that the architecture has no place for")


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
