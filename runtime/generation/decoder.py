"""A graph with a cache, run on texts of different lengths: the prompt at once, then a token at a time.

Shapes: B rows, S new tokens, T columns of the mask, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.errors import BadInput
from onnxsmith.runtime.feeds import TensorInfo
from onnxsmith.runtime.generation.buffers import DeviceCache, room
from onnxsmith.runtime.generation.cache import make_cache
from onnxsmith.runtime.generation.interface import Best, Interface
from onnxsmith.runtime.generation.ranked import Ranked
from onnxsmith.runtime.generation.source import Source
from onnxsmith.runtime.generation.steady import SteadySteps
from onnxsmith.runtime.session import Provider, graph_options, one_line

Array = NDArray[Any]
_MOST_RANKED = 1024  # tokens of a row: to find more takes as long as to read all its logits
PIECE = 512  # tokens of one row that are read at once: attention keeps a score for each of them and each before it


def column_bytes(interface: Interface, inputs: Sequence[TensorInfo]) -> int:
    """Bytes of the keys and values of one token of a row."""
    pasts = [info for info in inputs if info.name in interface.past]
    return sum(math.prod(int(d or 0) for d in (p.dims[1], p.dims[3])) * p.itemsize for p in pasts)


class Decoder:
    """Rows of text and their cache. ``lengths`` int64 [B] counts each row's tokens in it.

    ``picks``: a run gives the best next tokens, int64 [B], where it else gives logits, float32 [B, V]. With these come
    the ``wanted`` best tokens of each row, where the graph ranks them and these are not too many: ``ranked`` has those
    of the last run, or is None.
    ``source`` is what an encoder-decoder reads; ``prefill``, where it is given, runs for the prompts, and ``session``
    for what follows. ``step_bytes`` are the weights that a run reads, where that is known, and ``greedy_step_bytes``
    those of one that picks; ``read`` counts them, and keys and values, over all runs. ``nbytes`` are those of the cache
    and of the source's keys and values, as of the last run that bound them. ``steady``: steps have fixed shapes, on
    memory that stays, of a graph that takes them so.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        interface: Interface,
        inputs: Sequence[TensorInfo],
        *,
        source: Source | None = None,
        prefill: ort.InferenceSession | None = None,
        device: Provider = "cpu",
        step_bytes: int | None = None,
        greedy_step_bytes: int | None = None,
        steady: bool = False,
    ) -> None:
        self._session, self._names = session, interface
        self._prefill = prefill or session
        self._cache, self._room = make_cache(interface, inputs, device, lasting=steady), room(interface)
        lasting = self._cache if steady and isinstance(self._cache, DeviceCache) else None
        self._steady = (SteadySteps(session, device), lasting) if lasting is not None else None
        self._options = graph_options() if steady else None  # of all runs that are no steady steps
        self._width = 0  # columns of the cache in use
        self._dropped = np.zeros(0, np.int64)  # first tokens of each row that are there no more
        self._binding: ort.IOBinding | None = None  # of the last run; to bind a cache costs as much as a small product
        self._bound: tuple[ort.InferenceSession, list[str]] | None = None  # what runs, and what it gives
        self._yes = ort.OrtValue.ortvalue_from_numpy(np.array(True))
        self._step_bytes, self._greedy_step_bytes = step_bytes, greedy_step_bytes or step_bytes
        self._column_bytes = column_bytes(interface, inputs)
        self.read = self.nbytes = self.wanted = 0
        self.picks = False
        self.ranked: Ranked | None = None
        self.source = source
        self.lengths = np.zeros(0, np.int64)

    def start(self, prompts: Sequence[Sequence[int]]) -> Array:
        """Forget all rows and read these prompts, of at least one token each -> best tokens [B] or logits [B, V]"""
        counts = np.array([len(prompt) for prompt in prompts])
        self._cache.reset(len(prompts))
        self._binding = None
        self.lengths, self._dropped, self._width = np.zeros_like(counts), np.zeros_like(counts), 0
        if len(prompts) == 1:
            return self._read(prompts[0])
        ids = np.zeros((len(prompts), counts.max()), np.int64)
        ids[self._counting(counts, ids.shape[1])] = np.concatenate(prompts)
        return self._last(self._run(ids, counts, self._prefill), counts)

    def step(self, tokens: Array) -> Array:
        """One more token of each row, int64 [B] -> best tokens [B] or logits [B, V]"""
        found = self._run(tokens[:, None], self.lengths + 1)
        return self._last(found, np.ones_like(tokens))

    def extend(self, tokens: Sequence[int]) -> Array:
        """More tokens of the only row -> best tokens [1] or logits [1, V] after the last of them"""
        return self._read(tokens)

    def _read(self, tokens: Sequence[int]) -> Array:
        """As ``extend``, in pieces where the cache takes them in place."""
        at_once = PIECE if self._names.in_place else len(tokens)
        for start in range(0, len(tokens), at_once):
            piece = tokens[start : start + at_once]
            found = self._run(np.array([piece], np.int64), self.lengths + len(piece), self._prefill)
        return self._last(found, np.array([len(piece)]))

    def extend_whole(self, tokens: Sequence[int]) -> Array:
        """More tokens of the only row -> logits after each of them [S, V], where the graph gives them"""
        picks, self.picks = self.picks, False
        try:
            found: Array = self._run(np.array([tokens], np.int64), self.lengths + len(tokens))[0].copy()
        finally:
            self.picks = picks
        return found

    def select(self, rows: Array, shared: Array | None = None) -> None:
        """Row i becomes what row ``rows[i]`` was.

        Its first ``shared[i]`` tokens are the same as row i's own were, where there are as many rows as before.
        """
        self._binding = None
        # Rows that are not compact start with padding, each of its own length.
        same = np.zeros_like(rows)
        if shared is not None and self._names.in_place:
            same = np.maximum(shared - self._dropped[rows], 0)
        self._cache.select(rows, self._width, same)
        if self.source is not None:
            self.source.select(rows)
        self.lengths, self._dropped = self.lengths[rows], self._dropped[rows]
        self._width = int((self.lengths - self._dropped).max()) if self._names.in_place else self._width

    def reaches(self, length: int) -> bool:
        """Whether the cache has all that a token behind the first ones of the only row sees."""
        return not self._dropped[0] or length - self._dropped[0] >= self._seen

    def truncate(self, length: int) -> None:
        """Forget all but the first tokens of the only row."""
        left = length - int(self._dropped[0])
        if left < self._width:
            self._cache.truncate(left)
            self._binding = None
            self.lengths, self._width = np.array([length]), left

    @property
    def _seen(self) -> int:
        """How many earlier tokens a token sees through the window, where the cache rolls."""
        return (self._names.window or 1) - 1

    def _roll(self, new: int) -> None:
        """Where so many more tokens would fill the buffers, drop what no token sees any more."""
        if self._room is None:
            return
        counts = self.lengths - self._dropped
        starts = np.maximum(counts - self._seen, 0)
        if counts.max() + new <= self._room or not starts.any():
            return
        self._cache.roll(starts, counts - starts)
        self._binding = None
        self._dropped = self._dropped + starts

    def _run(self, ids: Array, lengths: Array, session: ort.InferenceSession | None = None) -> Array:
        """Ids [B, S] -> what the graph gives, with so many tokens in each row's cache after it.

        It is ONNX Runtime's memory, which the next run may take.
        """
        new, self.ranked = ids.shape[1], None
        self._roll(new)
        counts = lengths - self._dropped
        width = int(counts.max()) if self._names.in_place else self._width + new
        steady = self._steady if new == 1 and session is None else None
        mask = self._counting(counts, width if steady is None else self._columns(steady[1], width))
        feeds = {self._names.ids: ids, self._names.mask: mask.astype(np.int64)}
        if self._names.positions:
            places = np.maximum(mask.cumsum(1) - 1, 0)[:, -new:]
            feeds[self._names.positions] = places + self._dropped[:, None]
        if steady is None:
            found = self._bound_run(session or self._session, feeds, width)
        else:
            found = self._steady_run(*steady, feeds)
        self.lengths, self._width = lengths, width
        weights = self._greedy_step_bytes if self._picked else self._step_bytes
        if weights is not None:
            of_source = self.source.nbytes if self.source else 0
            self.read += weights + self._column_bytes * int(counts.sum()) + of_source
        return found

    def _columns(self, cache: DeviceCache, width: int) -> int:
        """How long the mask of a steady step is: as the buffers are, but no longer than there are positions."""
        return min(cache.reach(width), self._names.max_positions or cache.capacity)

    def _steady_run(self, steps: SteadySteps, cache: DeviceCache, feeds: dict[str, Array]) -> Array:
        self._binding = None
        try:
            found = steps.run(feeds, self._output, cache)
        except Exception as error:  # ONNX Runtime's error classes have no common base
            raise BadInput(f"ONNX Runtime fails on these tokens: {one_line(error)}") from error
        self.nbytes = cache.nbytes
        return found

    def _bound_run(self, session: ort.InferenceSession, feeds: dict[str, Array], width: int) -> Array:
        ranks = self._ranks(session)
        outputs = [self._output, *((ranks.scores, ranks.tokens) if ranks is not None else ())]
        held = self._binding if self._bound == (session, outputs) and self._cache.holds(width) else None
        binding = held or session.io_binding()
        if ranks is not None:
            binding.bind_ortvalue_input(ranks.count, ort.OrtValue.ortvalue_from_numpy(np.array([self.wanted])))
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}  # alive until the run is over
        for name, array in contiguous.items():
            binding.bind_cpu_input(name, array)
        for name in outputs:
            binding.bind_output(name)  # again and again: what a run has written there is not to be written over
        if held is None:
            self._ask(session, binding)
            self._cache.bind(binding, width)
            if self.source is not None:
                self.source.bind(binding)
        self._binding, self._bound = binding, (session, outputs)
        try:
            session.run_with_iobinding(binding, self._options)
        except Exception as error:  # ONNX Runtime's error classes have no common base
            raise BadInput(f"ONNX Runtime fails on these tokens: {one_line(error)}") from error
        given = binding.get_outputs_as_ortvaluevector()
        self._cache.take(binding, len(outputs))
        if held is None:  # asking each of many buffers takes longer than all else here
            self.nbytes = self._cache.nbytes + (self.source.nbytes if self.source else 0)
        if ranks is not None:
            self.ranked = Ranked(given[1].numpy()[:, 0], given[2].numpy()[:, 0])
        found: Array = given[0].numpy()
        return found

    def _ranks(self, session: ort.InferenceSession) -> Best | None:
        """How the graph is asked for what is ``wanted``, where it is and can be."""
        if not 0 < self.wanted <= _MOST_RANKED or self._names.best is None:
            return None
        return self._names.best if _can_ask(session, self._names.best.count) else None

    def _ask(self, session: ort.InferenceSession, binding: ort.IOBinding) -> None:
        """For the token alone, of a graph that can tell it without the logits."""
        if self._names.greedy is None or not self._picked:
            return
        if _can_ask(session, self._names.greedy):
            binding.bind_ortvalue_input(self._names.greedy, self._yes)

    @property
    def _output(self) -> str:
        return self._names.next_token if self._picked and self._names.next_token is not None else self._names.logits

    @property
    def _picked(self) -> bool:
        return self.picks and self._names.next_token is not None

    def _last(self, found: Array, counts: Array) -> Array:
        """Of tokens [B, 1] or logits [B, S, V], what belongs to the last of each row's ``counts`` new tokens.

        Logits may be what ``_run`` gives, until the next run.
        """
        if self._picked:
            return found[:, 0].copy()
        at_end = self._names.last_only or not self._names.in_place
        last = found[:, -1] if at_end else found[np.arange(len(found)), counts - 1]
        return last.argmax(1) if self.picks else last.astype(np.float32, copy=False)

    def _counting(self, lengths: Array, width: int) -> Array:
        """Which columns hold tokens, bool [B, T]: the first ones where rows are compact, else the last ones."""
        columns = np.arange(width)
        if self._names.in_place:
            return columns < lengths[:, None]
        return columns >= width - lengths[:, None]


def _can_ask(session: ort.InferenceSession, name: str) -> bool:
    """Whether the graph has the input, which need not be given."""
    return any(info.name == name for info in session.get_overridable_initializers())
