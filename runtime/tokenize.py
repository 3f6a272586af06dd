"""Texts to model inputs: token ids without padding, then batches padded on the left or the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onnxsmith.errors import BadInput, BadUsage

Padding = Literal["right", "left"]


@dataclass(frozen=True)
class Tokens:
    """One text's token ids and segment ids, without padding."""

    ids: Sequence[int]
    type_ids: Sequence[int]


class TextEncoder:
    """A ``tokenizer.json`` with its own padding switched off and truncation to ``max_length`` tokens."""

    def __init__(self, path: Path, max_length: int | None = None) -> None:
        """Load a tokenizer. Raises BadInput when the file is no tokenizer of the tokenizers library."""
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise BadInput(f"{path}: not a tokenizer.json ({error}); export the model again") from error
        self._pad_id = self._find_pad_id()
        self._tokenizer.no_padding()
        if max_length is not None:
            self._tokenizer.enable_truncation(max_length)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of every text. Raises BadInput for what is no text, or has no token at all."""
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise BadInput(f"text {index}: expected a string, found {type(text).__name__}")
        tokens = [Tokens(e.ids, e.type_ids) for e in self._tokenizer.encode_batch(list(texts))]
        for index, one in enumerate(tokens):
            if not one.ids:
                raise BadInput(f"text {index}: the tokenizer finds no token in {texts[index]!r}; leave it out")
        return tokens

    def pad(self, tokens: Sequence[Tokens], padding: Padding = "right") -> dict[str, NDArray[np.int64]]:
        """The inputs that text gives, by their usual names: int64 [B, S], S the longest of ``tokens``."""
        if padding not in ("right", "left"):
            raise BadUsage(f"unknown padding {padding!r}; expected right or left")
        shape = (len(tokens), max(len(one.ids) for one in tokens))
        ids, mask, types = np.full(shape, self._pad_id), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, one in enumerate(tokens):
            n = len(one.ids)
            span = slice(0, n) if padding == "right" else slice(shape[1] - n, None)
            ids[row, span], mask[row, span], types[row, span] = one.ids, 1, one.type_ids
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "position_ids": positions}

    def _find_pad_id(self) -> int:
        """The padding token; where there is none any valid id serves, because the attention mask hides it."""
        padding: Mapping[str, int] = self._tokenizer.padding or {}
        named = (self._tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
        return padding.get("pad_id", next((i for i in named if i is not None), 0))
