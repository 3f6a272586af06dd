"""Every mutation, by name, and the names by kind."""

from __future__ import annotations

from tests.fuzz.mutation import Mutation
from tests.fuzz.mutations import alibi, arithmetic, detours, layouts, masks, plumbing, powers, scales, weights

_KINDS = (arithmetic, scales, powers, masks, alibi, detours, weights, layouts, plumbing)
KINDS: list[list[str]] = [[m.name for m in kind.MUTATIONS] for kind in _KINDS]
MUTATIONS: dict[str, Mutation] = {m.name: m for kind in _KINDS for m in kind.MUTATIONS}
