"""From prompts to generated texts: the parts put together for one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.generation.beam import Finished, Search, search_beams
from onnxsmith.runtime.generation.call import Call, Pieces
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.interface import Interface
from onnxsmith.runtime.generation.lookup import generate_guessing
from onnxsmith.runtime.generation.loop import chooser, generate_rows
from onnxsmith.runtime.generation.rows import Row
from onnxsmith.runtime.tokenize import TextEncoder

DEFAULT_NEW_TOKENS = 256
Prompts = Sequence[Sequence[int]]


class Generator:
    """A decoder with its tokenizer. One call at a time: they share the decoder's cache.

    A call with one prompt leaves it to the next one, which reads no token again that both begin with.
    """

    def __init__(self, decoder: Decoder, interface: Interface, encoder: TextEncoder | None) -> None:
        self._decoder, self._names, self._encoder = decoder, interface, encoder
        self._kept: Row | None = None  # whose tokens the cache still holds
        self._turn = object()  # the call that runs

    def call(self, prompts: Prompts, config: GenerationConfig) -> Call:
        """Start to generate for these ids, each at least one; the first piece comes when the call is iterated.

        Raises:
            BadInput: a prompt is longer than the model's positions. BadUsage: stop texts without a tokenizer.
        """
        if config.stop_strings and self._encoder is None:
            raise BadUsage("stop_strings need a tokenizer, and this model has none; use eos_token_id")
        if config.prompt_lookup_num_tokens and self._names.last_only:
            raise BadUsage("prompt_lookup_num_tokens needs the logits of all tokens: optimize --cache --all-logits")
        cross = self._names.cross
        _check_length(prompts, None if cross is None else cross.max_positions)
        texts = self._texts(prompts, config)
        limit = self._limit(texts, config)
        decode = self._encoder.decode if self._encoder else None
        repeats = config.num_return_sequences
        rows = [Row(text, config, limit, decode) for text in texts for _ in range(repeats)]
        count = sum(map(len, prompts))

        def run() -> Pieces:
            turn = self._turn = object()
            for pieces in self._run(prompts, texts, rows, config, limit):
                yield pieces
                if self._turn is not turn:
                    raise BadUsage("another call of generate has begun on this model; to run two, load it twice")

        return Call(rows, run, count, self._decoder)

    def _run(
        self, prompts: Prompts, texts: Prompts, rows: Sequence[Row], config: GenerationConfig, limit: int
    ) -> Pieces:
        self._decoder.wanted = 0
        if self._decoder.source is not None:
            self._decoder.source.read(prompts)
        if config.num_beams > 1:
            yield from self._search(texts, rows, config, limit)
            return
        choose, self._decoder.picks = chooser(config, rows, limit)
        guesses = config.prompt_lookup_num_tokens > 0 and len(rows) == 1
        self._decoder.picks = self._decoder.picks and not guesses
        first = self._read(texts)
        self._kept = rows[0] if len(rows) == 1 and self._decoder.source is None else None
        if guesses:
            yield from generate_guessing(self._decoder, first, rows[0], config, limit)
            return
        if len(rows) > len(texts):
            copies = np.repeat(np.arange(len(texts)), config.num_return_sequences)
            self._decoder.select(copies)
            first = first[copies]
        yield from generate_rows(self._decoder, first, rows, choose)

    def _read(self, texts: Prompts) -> NDArray[Any]:
        """Read the prompts; of a single one, only what comes after its longest start that is in the cache already."""
        kept, self._kept = self._kept, None
        if kept is None or len(texts) > 1:
            return self._decoder.start(texts)
        (text,) = texts
        same = _shared(kept.ids[: self._decoder.lengths[0]], text[:-1])
        if not same or not self._decoder.reaches(same):
            return self._decoder.start(texts)
        self._decoder.truncate(same)
        return self._decoder.extend(text[same:])

    def _search(self, texts: Prompts, rows: Sequence[Row], config: GenerationConfig, limit: int) -> Pieces:
        """The rows are filled when all beams are at their end: until then there is no text."""
        self._decoder.picks = False
        self._kept = None
        starts = [np.array(text, np.int64) for text in texts]
        searches = [Search.start(config, limit) for _ in texts]
        for _ in search_beams(self._decoder, self._decoder.start(texts), starts, searches, self._ends(config)):
            yield [""] * len(rows)
        best = [one for search in searches for one in search.done[: config.num_return_sequences]]
        for row, hypothesis in zip(rows, best, strict=True):
            row.score = hypothesis.score
            for token in hypothesis.ids:
                row.add(token)

    def _ends(self, config: GenerationConfig) -> Finished:
        """Whether new ids int64 [n] come to an end by their last token."""
        decode = self._encoder.decode if self._encoder else None

        def ends(ids: NDArray[np.int64]) -> bool:
            if ids[-1] in config.eos_token_id:
                return True
            text = decode(ids.tolist()) if decode and config.stop_strings else ""
            return any(stop in text for stop in config.stop_strings)

        return ends

    def _texts(self, prompts: Prompts, config: GenerationConfig) -> Prompts:
        """What the decoder reads first: the prompts, or the token that starts a target."""
        if self._decoder.source is None:
            return prompts
        return [[config.start] for _ in prompts]

    def _limit(self, texts: Prompts, config: GenerationConfig) -> int:
        """How many tokens may be generated."""
        wanted = DEFAULT_NEW_TOKENS if config.max_new_tokens is None else config.max_new_tokens
        if self._names.max_positions is None:
            return wanted
        _check_length(texts, self._names.max_positions - 1)
        return min(wanted, self._names.max_positions - max(map(len, texts)))


def _check_length(texts: Prompts, most: int | None) -> None:
    """Raises BadInput for a text of more tokens."""
    if most is not None and (longest := max(map(len, texts))) > most:
        raise BadInput(f"a prompt has {longest} tokens, and the model takes at most {most}; shorten it")


def _shared(kept: NDArray[np.int64], text: Sequence[int]) -> int:
    """How many first ids are the same."""
    length = min(len(kept), len(text))
    differ = np.flatnonzero(kept[:length] != np.array(text[:length], np.int64))
    return int(differ[0]) if differ.size else length
