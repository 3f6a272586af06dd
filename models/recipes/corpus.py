"""This project's own text, as a corpus: what its files say in their docstrings."""

from __future__ import annotations

import ast
import lzma
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
_ROOMS = ("cli", "compiler", "models", "passes", "runtime")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


@cache
def own_texts() -> tuple[str, ...]:
    """The docstrings of each Python file of the package, the files in the order of their names."""
    package = Path(__file__).parents[2]  # which has the rooms in it, installed or in the tree
    paths = sorted(path for room in _ROOMS for path in (package / room).rglob("*.py"))
    texts = ("\n\n".join(_docstrings(path)) for path in paths)
    return tuple(text for text in texts if text)


def _docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
            yield text


def train_bpe(texts: Sequence[str], size: int) -> Tokenizer:
    """A byte-level BPE tokenizer with ``size`` tokens, the first of them END. Radford et al. 2019, section 2.2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def xz_bits(known: Sequence[str], new: Sequence[str]) -> int:
    """What xz needs for ``new`` texts when it has the ``known`` ones before them: a figure to beat."""
    first, both = ("\n".join(texts).encode() for texts in (known, [*known, *new]))
    return 8 * (len(lzma.compress(both, preset=9)) - len(lzma.compress(first, preset=9)))
