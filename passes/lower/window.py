"""What a mask lets a token see in rows that are padded on the right: all tokens before it, or the last so many.

And whether it adds to the scores of what is seen, too.
Found by evaluating the mask on the lengths at which windows would show: those of the numbers that it is computed from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.passes.cache.probe import allowed, evaluator, padded, with_sources
from onnxsmith.passes.cache.record import Cache
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.engine.values import constant

Array = NDArray[Any]
LENGTH = 9
_LARGEST = 1 << 17  # tokens in a window
_FEW = 16  # elements of a constant that may be a window's length


@dataclass(frozen=True)
class Sight:
    """``window``: how many last keys a token sees, itself among them; None for all. ``biased``: scores are moved."""

    window: int | None = None
    biased: bool = False


class Rows:
    """A mask of a model with a cache, as a function of lengths and marks."""

    def __init__(self, graph: ir.Graph, cache: Cache, mask: ir.Value) -> None:
        inputs = {v.name: v for v in graph.inputs if v.name in (cache.ids, cache.mask)}
        given, last = list(inputs.values()), mask.producer()
        self.nodes = with_sources([last] if last is not None else [], given)
        self._run, self._cache = evaluator(self.nodes, given, mask, graph.opset_imports), cache
        self._kinds = {str(name): v.dtype.numpy() for name, v in inputs.items() if v.dtype is not None}

    def __call__(self, marks: Array, new: int) -> Array:
        """The rows [B|1, H|1, S, T] of the last ``new`` tokens under a text's mask ``marks`` [B, T]."""
        feeds = {self._cache.ids: np.zeros((len(marks), new), np.int64), self._cache.mask: marks}
        given = {n: x.astype(self._kinds[n]) for n, x in feeds.items() if n in self._kinds}
        try:
            with np.errstate(all="ignore"):
                (found,) = self._run.run(None, given)
        except Exception as e:  # onnx.reference has its own ways to say that it lacks an operator
            raise Refused(f"the mask cannot be evaluated: {str(e).splitlines()[0]}") from e
        return np.asarray(found).reshape((1,) * (4 - np.ndim(found)) + np.shape(found))


def sight_of(mask: ir.Value | None, graph: ir.Graph, cache: Cache) -> Sight:
    """What a token sees under the mask. Refuses one that says anything but causal, a window and a bias."""
    if mask is None:
        return Sight()
    rows = Rows(graph, cache, mask)
    sizes = sorted({2 * LENGTH, *(n + 2 for n in _numbers(rows.nodes))})
    windows = {_window(rows(np.ones((1, size), np.int64), 2)) for size in sizes}
    found = min((w for w in windows if w is not None), default=None)
    marks = padded(LENGTH)["right"]
    biased = [_is_biased(rows(ones, 2), ones, found) for ones in (np.ones((1, size), np.int64) for size in sizes)]
    return Sight(found, any([*biased, _is_biased(rows(marks, LENGTH), marks, found)]))


def _numbers(nodes: list[ir.Node]) -> set[int]:
    tensors = [t for node in nodes for v in node.inputs if (t := constant(v)) is not None and t.size <= _FEW]
    found = {abs(int(n)) for t in tensors if t.dtype.is_integer() for n in t.numpy().ravel()}
    return {n for n in found if LENGTH < n <= _LARGEST}


def _window(rows: Array) -> int | None:
    """How many keys the last token sees, where that is not all."""
    seen = int(allowed(rows)[0, 0, -1].sum())
    return None if seen == rows.shape[-1] else seen


def _is_biased(rows: Array, marks: Array, window: int | None) -> bool:
    """Whether scores of what is seen are moved. Refuses rows of tokens that say anything but causal and that window."""
    total, count = marks.shape[1], rows.shape[-2]
    queries, keys = np.arange(total - count, total)[:, None], np.arange(total)[None, :]
    wanted = keys <= queries if window is None else (keys <= queries) & (queries - keys < window)
    tokens = marks[:, None, -count:, None] == 1
    seen = allowed(rows)
    if np.any((seen != wanted) & tokens):
        raise Refused("a token sees other keys than the earlier ones or the last so many")
    return rows.dtype != bool and bool(np.any((rows != 0) & wanted & tokens))
