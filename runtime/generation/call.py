"""One call of ``generate`` while it runs: its rows, its pieces of text, its clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.result import Generated, Timing
from onnxsmith.runtime.generation.rows import Row

Pieces = Iterator[list[str]]


class Stream(Iterator[str]):
    """The pieces of one text as they are generated. ``result`` tells at any time what there is so far.

    Whoever stops early, by ``break`` or Ctrl-C, has in ``result`` what was generated until then.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._pieces = iter(call)

    def __next__(self) -> str:
        while not (piece := next(self._pieces)[0]):
            pass
        return piece

    @property
    def result(self) -> Generated:
        """The ids, text and times so far."""
        return self._call.result()


class Call:
    """``run`` starts the loop, by which ``decoder`` fills the rows."""

    def __init__(self, rows: Sequence[Row], run: Callable[[], Pieces], prompt_tokens: int, decoder: Decoder):
        self._rows, self._run, self._prompt_tokens, self._decoder = rows, run, prompt_tokens, decoder
        self._first = self._total = 0.0
        self._bytes = self._read = 0

    def __iter__(self) -> Pieces:
        """The new piece of text of each row, after every run of the graph."""
        start = time.perf_counter()
        for pieces in self._run():
            self._total = time.perf_counter() - start
            if not self._first:
                self._first, before = self._total, self._decoder.read
            self._bytes = max(self._bytes, self._decoder.nbytes)
            self._read = self._decoder.read - before
            yield pieces

    def result(self) -> Generated:
        """What there is so far."""
        scores = [row.score for row in self._rows if row.score is not None]
        return Generated(
            sequences=tuple(row.new for row in self._rows),
            texts=tuple(row.text for row in self._rows),
            reasons=tuple(row.reason or "length" for row in self._rows),
            scores=tuple(scores) or None,
            timing=Timing(
                self._first,
                self._total,
                self._prompt_tokens,
                sum(len(row.new) for row in self._rows),
                len(self._rows),
                self._bytes,
                self._read,
            ),
        )
