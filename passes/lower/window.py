"""What a mask lets a token see in rows that are padded on the right: all tokens before it, or the last so many.

Found by evaluating the mask on the lengths at which windows would show: those of the numbers that it is computed from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxsmith.passes.cache.probe import allowed, evaluator, padded, with_sources
from onnxsmith.passes.cache.record import Cache
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.engine.values import constant

Array = NDArray[Any]
_LENGTH = 9
_LARGEST = 1 << 17  # tokens in a window
_FEW = 16  # elements of a constant that may be a window's length


def window_of(mask: ir.Value | None, graph: ir.Graph, cache: Cache) -> int | None:
    """How many last keys a token sees, itself among them; None for all. Refuses a mask that says anything else.

    ``mask`` [B|1, H|1, S, T] is that of a model with a cache.
    """
    if mask is None:
        return None
    inputs = {v.name: v for v in graph.inputs if v.name in (cache.ids, cache.mask)}
    given, last = list(inputs.values()), mask.producer()
    nodes = with_sources([last] if last is not None else [], given)
    run = evaluator(nodes, given, mask, graph.opset_imports)
    kinds = {str(name): v.dtype.numpy() for name, v in inputs.items() if v.dtype is not None}
    sizes = sorted({2 * _LENGTH, *(n + 2 for n in _numbers(nodes))})
    windows = {_window(_rows(run, cache, kinds, np.ones((1, size), np.int64), 2)) for size in sizes}
    found = min((w for w in windows if w is not None), default=None)
    for marks in (np.ones((1, size), np.int64) for size in sizes):
        _check(_rows(run, cache, kinds, marks, 2), marks, found)
    marks = padded(_LENGTH)["right"]
    _check(_rows(run, cache, kinds, marks, _LENGTH), marks, found)
    return found


def _numbers(nodes: list[ir.Node]) -> set[int]:
    tensors = [t for node in nodes for v in node.inputs if (t := constant(v)) is not None and t.size <= _FEW]
    found = {abs(int(n)) for t in tensors if t.dtype.is_integer() for n in t.numpy().ravel()}
    return {n for n in found if _LENGTH < n <= _LARGEST}


def _rows(run: ReferenceEvaluator, cache: Cache, kinds: dict[str, Any], marks: Array, new: int) -> Array:
    """The mask's rows of the last ``new`` tokens, [B|1, H|1, S, T]."""
    feeds = {cache.ids: np.zeros((len(marks), new), np.int64), cache.mask: marks}
    try:
        (found,) = run.run(None, {name: x.astype(kinds[name]) for name, x in feeds.items() if name in kinds})
    except Exception as e:  # onnx.reference has its own ways to say that it lacks an operator
        raise Refused(f"the mask cannot be evaluated: {str(e).splitlines()[0]}") from e
    return np.asarray(found)


def _window(rows: Array) -> int | None:
    """How many keys the last token sees, where that is not all."""
    seen = int(allowed(rows)[0, 0, -1].sum())
    return None if seen == rows.shape[-1] else seen


def _check(rows: Array, marks: Array, window: int | None) -> None:
    """Refuse rows that say anything but causal and that window, at tokens, or that move scores."""
    total, count = marks.shape[1], rows.shape[-2]
    queries, keys = np.arange(total - count, total)[:, None], np.arange(total)[None, :]
    wanted = keys <= queries if window is None else (keys <= queries) & (queries - keys < window)
    tokens = marks[:, None, -count:, None] == 1
    seen = allowed(rows)
    if np.any((seen != wanted) & tokens):
        raise Refused("a token sees other keys than the earlier ones or the last so many")
    if rows.dtype != bool and np.any((rows != 0) & wanted & tokens):
        raise Refused("a bias is added to the scores")
