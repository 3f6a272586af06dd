"""Tokenizers from the files that were there before tokenizer.json: vocab.txt, merges.txt, SentencePiece models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from onnxsmith.errors import BadInput, first_line
from onnxsmith.models.json_file import read_json
from onnxsmith.models.sentencepiece import marian_tokenizer, t5_tokenizer
from onnxsmith.models.special_tokens import Names, default_names, read_token

_CONVERT = "make a tokenizer.json with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
# Which tokenizers with merges.txt split text as GPT-2 does, and whether they put <s> and </s> around it.
_BYTE_LEVEL = {"gpt2": False, "roberta": True, "bart": True}


def build_tokenizer(folder: Path, settings: Mapping[str, Any], given: Names, model_type: object) -> Tokenizer | None:
    """The tokenizer of a folder without tokenizer.json; None when it has no other tokenizer file either.

    Args:
        settings: tokenizer_config.json.
        given: special tokens by role, as far as the files name them.
        model_type: of config.json, which tells what merges.txt goes with.

    Raises:
        BadInput: a file is broken, or the tokenizer is of a kind that needs a tokenizer.json.
    """
    kind = "bert" if (folder / "vocab.txt").exists() else model_type
    names = default_names(kind) | given
    try:
        tokenizer = _build(folder, settings, names, model_type)
        if tokenizer is not None:
            _add_tokens(tokenizer, folder, settings, names)
    except (TypeError, ValueError) as e:  # what the library says of settings that are not of its types
        raise BadInput(f"{folder}: tokenizer_config.json does not fit ({first_line(e)}); {_CONVERT}") from None
    return tokenizer


def _build(folder: Path, settings: Mapping[str, Any], names: Names, model_type: object) -> Tokenizer | None:
    if (folder / "vocab.txt").exists():
        return _word_piece(_read_words(folder / "vocab.txt"), settings, names)
    if (folder / "merges.txt").exists():
        return _byte_level(folder, settings, names, model_type)
    if model_type == "t5" and (path := folder / "spiece.model").exists():
        return t5_tokenizer(path, _named(names, "eos"), settings.get("extra_ids", 100))
    if model_type == "marian" and (path := folder / "source.spm").exists():
        vocabulary = _read_vocabulary(folder / "vocab.json")
        return marian_tokenizer(path, vocabulary, _named(names, "eos"), _named(names, "unk"))
    if found := sorted([*folder.glob("*.model"), *folder.glob("*.spm")]):
        raise BadInput(f"{found[0]} is a SentencePiece model and there is no tokenizer.json; {_CONVERT}")
    return None


def _word_piece(words: list[str], settings: Mapping[str, Any], names: Names) -> Tokenizer:
    """BERT's tokenizer: lower-cased or not, words split at punctuation, then into pieces of the vocabulary."""
    vocabulary = {word: i for i, word in enumerate(words)}
    unk, sep, cls = (_required(names, role, vocabulary, "vocab.txt") for role in ("unk", "sep", "cls"))
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=unk[0]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    return tokenizer


def _byte_level(folder: Path, settings: Mapping[str, Any], names: Names, model_type: object) -> Tokenizer:
    """GPT-2's tokenizer, byte-level BPE; RoBERTa's and BART's put ``<s>`` and ``</s>`` around every text."""
    if model_type not in _BYTE_LEVEL or settings.get("add_bos_token"):
        raise BadInput(
            f"{folder} has merges.txt of a {model_type} tokenizer that only a tokenizer.json says; {_CONVERT}"
        )
    vocabulary = _read_vocabulary(folder / "vocab.json")
    space = settings.get("add_prefix_space", False)
    tokenizer = Tokenizer(BPE(vocabulary, _read_merges(folder / "merges.txt", vocabulary)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    if _BYTE_LEVEL[model_type]:
        sep, cls = (_required(names, role, vocabulary, "vocab.json") for role in ("sep", "cls"))
        tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=space)
    return tokenizer


def _required(names: Names, role: str, vocabulary: Mapping[str, int], file: str) -> tuple[str, int]:
    """The token of that role and its id."""
    token = _named(names, role)
    if token not in vocabulary:
        raise BadInput(f"{file} lacks the {role} token {token!r}; fetch it again")
    return token, vocabulary[token]


def _named(names: Names, role: str) -> str:
    token = names.get(role)
    if token is None:
        raise BadInput(f"tokenizer_config.json names no {role}_token, which this tokenizer needs; {_CONVERT}")
    content: str = token.content
    return content


def _add_tokens(tokenizer: Tokenizer, folder: Path, settings: Mapping[str, Any], names: Names) -> None:
    """Special and added tokens are never split; added ones may stand behind the vocabulary, under the ids they name."""
    named = {token.content: token for token in names.values() if token}
    for id, token in sorted(_added(folder, settings, named).items()):
        tokenizer.add_tokens([token])
        if (found := tokenizer.token_to_id(token.content)) != id:
            raise BadInput(f"{folder} adds the token {token.content!r} as {id}, but its place is {found}; {_CONVERT}")
        named.pop(token.content, None)  # added_tokens_decoder knows more of a token than its name
    tokenizer.add_tokens([token for text, token in named.items() if tokenizer.token_to_id(text) is not None])


def _added(folder: Path, settings: Mapping[str, Any], named: Mapping[str, AddedToken]) -> dict[int, AddedToken]:
    """Tokens by id, of tokenizer_config.json's added_tokens_decoder or else of added_tokens.json."""
    entries = settings.get("added_tokens_decoder")
    path = folder / "added_tokens.json"
    if entries is None and path.exists():
        return {int(id): named.get(text) or AddedToken(text) for text, id in read_json(path, dict).items()}
    tokens = {int(id): read_token(token, "an added token") for id, token in dict(entries or {}).items()}
    return {id: token for id, token in tokens.items() if token}


def _read_words(path: Path) -> list[str]:
    """One token a line, its line number is its id; empty lines at the end do not count."""
    words = read_file(path).rstrip("\n").split("\n")
    if words == [""]:
        raise BadInput(f"{path} is empty; fetch it again")
    lines: dict[str, int] = {}
    for line, word in enumerate(words, 1):
        if (first := lines.setdefault(word, line)) != line:
            raise BadInput(f"{path} has {word!r} on the lines {first} and {line}; each token must be there once")
    return words


def _read_vocabulary(path: Path) -> dict[str, int]:
    vocabulary: dict[str, int] = read_json(path, dict)
    ids = set(vocabulary.values())
    if not all(type(id) is int and 0 <= id < 2**31 for id in ids) or len(ids) < max(len(vocabulary), 1):
        raise BadInput(f"{path} must give every token an id of its own; fetch it again")
    return vocabulary


def _read_merges(path: Path, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of tokens, the first ones merged first; they and what they make are in the vocabulary."""
    merges = []
    for line in read_file(path).split("\n"):
        if not line or line.startswith("#version"):
            continue
        first, _, second = line.partition(" ")
        if not first or not second or " " in second:
            raise BadInput(f"{path} has the line {line!r}; two tokens with a space between them were expected")
        if unknown := [token for token in (first, second, first + second) if token not in vocabulary]:
            raise BadInput(f"{path} has the line {line!r}, but vocab.json has no {unknown[0]!r}; fetch both again")
        merges.append((first, second))
    return merges


def read_file(path: Path) -> str:
    """A text file. Raises BadInput when it is not UTF-8 or cannot be opened."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        raise BadInput(f"{path} is not readable as UTF-8 text ({e}); fetch it again") from None
