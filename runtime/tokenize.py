"""Texts to model inputs: token ids without padding, then batches padded on the left or the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.artifact import Artifact

Padding = Literal["right", "left"]
Text: TypeAlias = str | tuple[str, str]  # a text, or a pair that the tokenizer joins


@dataclass(frozen=True)
class Tokens:
    """One text's token ids and segment ids, without padding."""

    ids: Sequence[int]
    type_ids: Sequence[int]


@dataclass(frozen=True)
class Window:
    """A question and a part of its context. ``words``: where the word of each token stands in the context, if it does.

    A place is the first character and the one after the last.
    """

    tokens: Tokens
    words: tuple[tuple[int, int] | None, ...]

    @classmethod
    def of(cls, encoding: Encoding) -> Window:
        """From what the tokenizers library gives for a pair."""
        places = zip(encoding.sequence_ids, encoding.word_ids, encoding.offsets, strict=True)
        words = [
            None if side != 1 else offsets if word is None else encoding.word_to_chars(word, 1)
            for side, word, offsets in places
        ]
        return cls(Tokens(encoding.ids, encoding.type_ids), tuple(words))


class TextEncoder:
    """A ``tokenizer.json`` with its own padding switched off and truncation to ``max_length`` tokens.

    Where the model has no padding token any valid id serves, because the attention mask hides it.
    """

    def __init__(
        self, file: Path | bytes, max_length: int | None = None, *, pad_id: int = 0, padding: Padding = "right"
    ) -> None:
        """Load a tokenizer from a file, or its contents. Raises BadInput for no tokenizer of the tokenizers library."""
        try:
            self._tokenizer = Tokenizer.from_buffer(file) if isinstance(file, bytes) else Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            name = "its contents" if isinstance(file, bytes) else file
            raise BadInput(f"{name}: not a tokenizer.json ({error}); export the model again") from error
        self._pad_id, self._padding = pad_id, padding
        self._tokenizer.no_padding()
        if max_length is not None:
            self._tokenizer.enable_truncation(max_length)

    def encode(self, texts: Sequence[Text], *, add_special_tokens: bool = True) -> list[Tokens]:
        """Token ids of every text or pair; a prompt has its special tokens already, and needs none added.

        Raises BadInput for what is neither text nor pair, or has no token at all.
        """
        for index, text in enumerate(texts):
            if not (_is_pair(text) or isinstance(text, str)):
                raise BadInput(f"text {index}: expected a string, found {type(text).__name__}")
            _check_unicode(text)
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        tokens = [Tokens(e.ids, e.type_ids) for e in found]
        for index, one in enumerate(tokens):
            if not one.ids:
                raise BadInput(f"text {index}: the tokenizer finds no token in {texts[index]!r}; leave it out")
        return tokens

    def windows(self, question: str, context: str, overlap: int) -> list[Window]:
        """A question with each part of a context that is too long for one text; neighbours share some tokens.

        Raises BadInput for a question that leaves no place for a context beside it, or a context without a token.
        """
        _check_unicode((question, context))
        limits = self._tokenizer.truncation
        special = self._tokenizer.num_special_tokens_to_add(True)
        asked = len(self._tokenizer.encode(question, add_special_tokens=False).ids)
        if limits is not None and (room := limits["max_length"] - special - asked) <= overlap:
            raise BadInput(
                f"the question has {asked} tokens, which leaves place for {max(room, 0)} of the context, "
                f"and more than {overlap} are needed; shorten it"
            )
        whole = self._tokenizer if limits is None else self._overlapping(limits["max_length"], overlap)
        first = whole.encode(question, context)
        found = [Window.of(one) for one in (first, *first.overflowing)]
        if not any(span for window in found for span in window.words):
            raise BadInput(f"the tokenizer finds no token in the context {context[:60]!r}; give a text with an answer")
        return found

    def _overlapping(self, length: int, overlap: int) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.enable_truncation(length, stride=overlap, strategy="only_second")
        return tokenizer

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids; half a character at an end becomes U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def text_of(self, id: int) -> str:
        """The token of an id. Raises BadInput when there is none."""
        token: str | None = self._tokenizer.id_to_token(id)
        if token is None:
            raise BadInput(f"the tokenizer has no token {id}; export the model again")
        return token

    def pad(self, tokens: Sequence[Tokens], padding: Padding | None = None) -> dict[str, NDArray[np.int64]]:
        """The inputs that text gives, by their usual names: int64 [B, S], S the longest of ``tokens``."""
        padding = padding or self._padding
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


def text_encoder(artifact: Artifact, *, truncate: bool = True) -> TextEncoder:
    """The tokenizer of an artifact, with the padding that its manifest names, and its lengths if it is to ``truncate``.

    Raises BadInput when there is none beside the model, or its file is no tokenizer.
    """
    manifest = artifact.manifest
    file = artifact.texts.get(str(manifest.get("tokenizer"))) or artifact.sidecar("tokenizer")
    if file is None:
        raise BadInput(f"{artifact.model}: no tokenizer beside this model; give it arrays instead of texts")
    limits = [n for n in (manifest.get("max_length"), manifest.get("bounds", {}).get("sequence")) if n is not None]
    pad_id, padding = manifest.get("special_tokens", {}).get("pad", 0), manifest.get("padding_side", "right")
    limit = min(limits, default=None) if truncate else None
    return TextEncoder(file, limit, pad_id=pad_id, padding=padding)


def _check_unicode(text: Text) -> None:
    """Raises BadInput for half of a surrogate pair, as which bytes that are not UTF-8 come from a terminal."""
    for part in (text,) if isinstance(text, str) else text:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"not Unicode text (character {error.start} of {part[:40]!r}); give UTF-8") from None


def _is_pair(text: object) -> bool:
    return isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)
