"""Where a variant first computes something else than the original: values that both have, in the variant's order.

Two values are the same one when they have the same name, as rewriters mostly keep it, or else the same shape and
numbers on these inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.bodies import reads
from onnxsmith.compiler.reduce.parts import capture, inputs_of
from onnxsmith.compiler.reduce.trial import Values, attempt, broken, different, wrong
from onnxsmith.compiler.reduce.write import Reduced
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.region import cut, expose, is_weight
from onnxsmith.runtime.child import Setup
from onnxsmith.runtime.parity import rms

_ALIKE = 1e-5  # relative RMS difference of two float32 values that are one
_WITNESSES = 4  # other values that are asked whether shared nodes are right


def first_difference(variant: ir.Model, original: ir.Model, feeds: Values, setup: Setup) -> Reduced | None:
    """The smallest such part around the first wrong value; None where parts that end in one are all right."""
    pair = _Pair(variant, original, capture(variant, feeds), capture(original, feeds), setup)
    common = [name for name in pair.order if name in pair.theirs]
    truth = Reference(expose(original, common)).run(feeds)
    off = [n for n in common if n not in pair.ours or wrong(*({n: x[n]} for x in (pair.ours, pair.theirs, truth)))]
    pair.twins |= {n: n for n in common if n not in off} | dict(_alike(pair.order, pair.ours, pair.theirs))
    for target in off:
        if found := pair.difference(target):
            return pair.without_shared(target, found)
    return None


@dataclass
class _Pair:
    """A variant and its original, and all values of both on the same inputs.

    ``twins`` are right values of the variant and what they are called in the original, ``trusted`` ones that it does
    not have and that are right all the same.
    """

    variant: ir.Model
    original: ir.Model
    ours: Values
    theirs: Values
    setup: Setup
    twins: dict[str, str] = field(default_factory=dict)
    trusted: set[str] = field(default_factory=set)

    @cached_property
    def order(self) -> list[str]:
        return [str(v.name) for node in self.variant.graph for v in node.outputs if v.name]

    @cached_property
    def producers(self) -> dict[str, ir.Node]:
        return {str(v.name): node for node in self.variant.graph for v in node.outputs if v.name}

    def difference(self, target: str) -> Reduced | None:
        """The part of the variant between values that are right and ``target``, beside the original's."""
        _, border = self.part(target)
        fresh = cut(self.variant, tuple(border), (target,))
        own = tuple(dict.fromkeys(self.twins.get(n, n) for n in border if n not in self.trusted))
        same = cut(self.original, own, (target,))
        given = {n: self.ours[n] if n in self.trusted else self.theirs[self.twins.get(n, n)] for n in inputs_of(fresh)}
        own_feeds = {n: self.theirs[n] for n in inputs_of(same)}
        ran = attempt(fresh, given, self.setup)
        truth = Reference(same).run(own_feeds)
        if failure := broken(ran):
            return Reduced(fresh, given, failure, same, truth)
        off = wrong(ran.outputs, attempt(same, own_feeds).outputs, truth)
        return Reduced(fresh, given, different(*off), same, truth) if off else None

    def part(self, target: str) -> tuple[set[ir.Node], list[str]]:
        """The nodes between right values and the target, and those values (or inputs of the graph)."""
        producer = self.producers[target]
        seen, stack, border = {producer}, list(reads(producer)), dict[str, None]()
        while stack:
            v = stack.pop()
            node = v.producer()
            if v.name in self.twins or v.name in self.trusted or node is None:
                if not is_weight(v):
                    border[str(v.name)] = None
            elif node not in seen:
                seen.add(node)
                stack += reads(node)
        return seen, list(border)

    def without_shared(self, target: str, found: Reduced) -> Reduced:
        """Leave out nodes that other values, right ones where they start from right values, need as well."""
        nodes, _ = self.part(target)
        others = [n for n in self.order if n in self.theirs and n != target and self.producers[n] not in nodes]
        tried = 0
        for other in others:
            shared = self.part(other)[0] & nodes
            if not shared or self.producers[target] in shared or tried == _WITNESSES:
                continue
            tried += 1
            if self.difference(other) is None:
                self.trusted |= {str(v.name) for node in shared for v in node.outputs if v.name in self.ours}
                return self.difference(target) or found
        return found


def _alike(order: list[str], ours: Values, theirs: Values) -> Iterator[tuple[str, str]]:
    """Values of the variant without a namesake that hold the numbers of one value of the original."""
    by_size: dict[tuple[Any, ...], list[str]] = {}
    for name, value in theirs.items():
        by_size.setdefault((value.shape, value.dtype), []).append(name)
    for name in order:
        if name in theirs or name not in ours or not ours[name].size:
            continue
        value = ours[name]
        close = (n for n in by_size.get((value.shape, value.dtype), ()) if _same(value, theirs[n]))
        if (twin := next(close, None)) is not None:
            yield name, twin


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if not np.issubdtype(a.dtype, np.floating):
        return bool(np.array_equal(a, b))
    if np.ptp(b) == 0:
        return False  # constants are alike by chance
    with np.errstate(invalid="ignore"):
        return bool(np.array_equal(np.isfinite(a), np.isfinite(b)) and rms(a - b) <= _ALIKE * rms(b))
