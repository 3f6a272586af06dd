"""Running a model with a cache, as a runtime does: a prompt, then more of the text, with what was kept of it before.

Shapes: B batch, S tokens of a text, n of them in one call, T those so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.shortcuts import wrong_rows
from onnxsmith.passes.cache.record import Cache, Cross, feeds_columns, recorded
from onnxsmith.passes.engine.values import dims

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Run = Callable[[Feeds], Mapping[str, Array]]  # outputs by name; none where it fails
Result = tuple[Array, NDArray[np.bool_]]  # logits [B, S, V] and the positions [B, S] that have them
_AFTER = 3  # tokens that follow a prompt one by one
_SHORT = 9  # tokens of a text that is fed one by one as a whole
_STALE = 7.0  # what a buffer holds where nothing was written


@dataclass(frozen=True)
class Call:
    """``ids`` [B, n] under ``mask`` [B, T]: logits are those of the columns ``last`` [B] of rows that ``count`` [B]."""

    ids: Array
    mask: Array
    last: Array
    count: NDArray[np.bool_]


def text_of(cache: Cache, feeds: Feeds) -> tuple[Array, Array]:
    """Ids and mask [B, S]; without a mask every token counts. In place, the tokens of a row stand first in it."""
    ids = feeds[cache.ids]
    mask = feeds.get(cache.mask, np.ones_like(ids))
    if cache.layout == "concat":
        return ids, mask
    order = np.argsort(mask == 0, axis=1, kind="stable")
    mask = np.take_along_axis(mask, order, 1)
    mask[:, 0] = 1  # every row has a token
    return np.take_along_axis(ids, order, 1), mask


def schedules(cache: Cache, ids: Array, mask: Array) -> Iterator[list[Call]]:
    """Ways to feed a text: a prompt and single tokens, in two pieces, and one token at a time."""
    length = ids.shape[1]
    counts = [min(_AFTER, length - 1), *([length - 1] if length <= _SHORT else [])]
    if cache.layout == "concat":
        yield from (_by_columns(ids, mask, [length - after] + [1] * after) for after in counts)
        yield _by_columns(ids, mask, [(length + 1) // 2, length // 2])
        return
    room = min(_room(length), cache.max_positions or _room(length)) if cache.steady else None
    yield from (_by_rows(ids, mask, after, room) for after in counts)
    first = int(mask[0].astype(bool).sum())
    yield _by_columns(ids[:1, :first], mask[:1, :first], [(first + 1) // 2, first // 2])


def _by_columns(ids: Array, mask: Array, counts: Sequence[int]) -> list[Call]:
    calls, at = [], 0
    for n in filter(None, counts):
        recent, at = mask[:, at : at + n].astype(bool), at + n
        last = at - 1 - np.argmax(recent[:, ::-1], axis=1)
        calls.append(Call(ids[:, at - n : at], mask[:, :at], last, np.asarray(recent.any(axis=1))))
    return calls


def _by_rows(ids: Array, mask: Array, after: int, room: int | None) -> list[Call]:
    """Prompts of all tokens but ``after``, then those one by one; rows that have ended go on with any token.

    Where there is ``room``, every second step's mask has so many columns.
    """
    lengths = mask.astype(bool).sum(axis=1)
    prompts = np.maximum(lengths - after, 1)
    width = int(prompts.max())
    calls = [Call(ids[:, :width], _first(prompts, mask.dtype), prompts - 1, np.ones(len(ids), bool))]
    for step in range(after):
        at = prompts + step
        last = np.minimum(at, ids.shape[1] - 1)
        marks = _first(at + 1, mask.dtype, room if step % 2 else None)
        calls.append(Call(np.take_along_axis(ids, last[:, None], 1), marks, last, at < lengths))
    return calls


def _first(lengths: Array, dtype: Any, width: int | None = None) -> Array:
    """A mask [B, T] of so many tokens in each row, as wide as the longest or wider."""
    return np.asarray(np.arange(max(width or 0, lengths.max())) < lengths[:, None], dtype)


def _room(length: int) -> int:
    """Columns of the buffers for a text of that length: there is one to spare."""
    return length + 1


def rows_alone(calls: Sequence[Call]) -> Iterator[list[Call]]:
    """The calls of each compact row by itself, without padding: for a model that takes no compact rows."""
    for row in range(len(calls[0].ids)):
        alone = []
        for call in calls:
            total = int(call.mask[row].astype(bool).sum())
            at, new = slice(row, row + 1), min(call.ids.shape[1], total)
            alone.append(Call(call.ids[at, :new], call.mask[at, :total], call.last[at], call.count[at]))
        yield alone


class Stepper:
    """A model with a cache."""

    def __init__(self, model: ir.Model, run: Run) -> None:
        cache = recorded(model)
        assert cache is not None, "only a model with a cache is run in steps"
        self.cache, self._run = cache, run
        self._columns = feeds_columns(model) and cache.layout == "concat"  # in place, a row has no padding
        self._given = {str(v.name): v for v in model.graph.inputs}

    def __call__(self, calls: Sequence[Call], length: int, source: Feeds | None = None) -> Result | None:
        """Logits [B, S, V] and at which positions [B, S] they were asked for; None where a call fails.

        ``source`` [B, ..] is what is read of another text at each call. Where what else the model gives is not what its
        logits say, they are NaN.
        """
        rows = np.arange(len(calls[0].ids))
        known = np.zeros((len(rows), length), bool)
        logits: Array | None = None
        past = self._empty(len(rows), length)
        read = {name: x[: len(rows)] for name, x in (source or {}).items()}
        for number, call in enumerate(calls):
            feeds = {**self._inputs(call), **read, **past}
            found = self._run(feeds)
            if not found:
                return None
            past = {name: found[present] for name, present in zip(self.cache.past, self.cache.present, strict=True)}
            last = self._last(found, call)
            last[wrong_rows(self.cache, self._run, feeds, found, last, first=number == 0)] = np.nan
            logits = np.zeros((*known.shape, last.shape[-1]), last.dtype) if logits is None else logits
            logits[rows[call.count], call.last[call.count]] = last[call.count]
            known[rows[call.count], call.last[call.count]] = True
        assert logits is not None, "a text has a token"
        return logits, known

    def source(self, feeds: Feeds) -> dict[str, Array]:
        """What the model takes beside its text and past: of a source, as ``feeds`` has it; what it never reads is 0."""
        own = {self.cache.ids, self.cache.mask, self.cache.positions, *self.cache.past}
        others = {n: v for n, v in self._given.items() if n not in own and not v.is_initializer()}
        batch = len(feeds[self.cache.ids])
        return {n: feeds[n] if n in feeds else _zeros(v, batch) for n, v in others.items()}

    def _inputs(self, call: Call) -> dict[str, Array]:
        given = {self.cache.ids: call.ids, self.cache.mask: call.mask}
        if self.cache.positions is not None:
            given[self.cache.positions] = positions(call.ids, call.mask, columns=self._columns)
        return given

    def _last(self, found: Mapping[str, Array], call: Call) -> Array:
        logits = found[self.cache.logits]  # [B, 1, V] or [B, n, V]
        at = np.zeros_like(call.last) if logits.shape[1] == 1 else self._within(call)
        last = logits[np.arange(len(at)), at].copy()
        if self.cache.next_token is not None:
            last[found[self.cache.next_token][:, 0] != last.argmax(axis=-1)] = np.nan
        return last

    def _within(self, call: Call) -> Array:
        """The last token's place in the call."""
        recent = call.mask[:, -call.ids.shape[1] :].astype(bool)
        return np.asarray(np.max(recent * np.arange(recent.shape[1]), axis=1))

    def _empty(self, batch: int, length: int) -> dict[str, Array]:
        """Nothing kept yet: no columns, or in place a buffer of which nothing counts."""
        room = _room(length) if self.cache.layout == "in-place" else 0
        kept = {name: _columns(self._given[name], batch, room) for name in self.cache.past}
        return {name: np.full(size, _STALE, self.cache.dtype) for name, size in kept.items()}


def reader(cross: Cross, encoder: Run) -> Callable[[Feeds], dict[str, Array]]:
    """What a decoder takes of the source, from the feeds of the whole model; nothing where the encoder fails."""

    def read(feeds: Feeds) -> dict[str, Array]:
        found = encoder(feeds)
        if not found:
            return {}
        given = {past: found[output] for past, output in zip(cross.past, cross.outputs, strict=True)}
        return given if cross.mask is None else given | {cross.mask: feeds[cross.mask]}

    return read


def positions(ids: Array, mask: Array, *, columns: bool = False) -> Array:
    """Where the tokens of ids [B, n] stand, the last n columns of mask [B, T]: among the tokens, or ``columns``."""
    new, total = ids.shape[1], mask.shape[1]
    if columns:
        return np.broadcast_to(np.arange(total - new, total), ids.shape).copy()
    places = np.maximum(np.cumsum(mask.astype(bool), axis=1) - 1, 0)
    return np.asarray(places[:, total - new :], np.int64)


def as_prompt(model: ir.Model) -> Callable[[Feeds], Feeds]:
    """Completes the feeds of a text for a model with a cache: nothing kept before, and its positions.

    In place, every row must have a token, so one without gets its first.
    """
    cache = recorded(model)
    if cache is None:
        return lambda feeds: feeds
    given = {str(v.name): v for v in model.graph.inputs}

    def complete(feeds: Feeds) -> Feeds:
        if cache.ids not in feeds or any(name in feeds for name in cache.past):
            return feeds
        ids, mask = text_of(cache, feeds)
        past = {name: np.zeros(_columns(given[name], len(ids), 0), cache.dtype) for name in cache.past if name in given}
        places = {} if cache.positions is None else {cache.positions: positions(ids, mask)}
        return {**feeds, cache.ids: ids, cache.mask: mask, **places, **past}

    return complete


def _zeros(v: ir.Value, batch: int) -> Array:
    """As many rows, and 1 of whatever else is open."""
    shape = (batch, *(d if isinstance(d, int) else 1 for d in (dims(v) or [])[1:]))
    return np.zeros(shape, v.dtype.numpy() if v.dtype is not None else np.float32)


def _columns(v: ir.Value, batch: int, room: int) -> tuple[int, int, int, int]:
    """The shape of a past with room for so many tokens."""
    _, heads, _, size = dims(v) or [None] * 4
    assert isinstance(heads, int) and isinstance(size, int), "a cache has heads of known sizes"
    return batch, heads, room, size
