"""The tokenizer of a GGUF file, which is stored as tables under the keys ``tokenizer.ggml.*``, and its chat template.

The keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
How llama.cpp reads them: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from onnxsmith.errors import BadInput, first_line
from onnxsmith.models.gguf_file import GgufFile
from onnxsmith.models.text import TextFiles

_KEY = "tokenizer.ggml."
_ROLES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "pad": "padding_token_id",
    "unk": "unknown_token_id",
    "cls": "cls_token_id",
    "sep": "seperator_token_id",  # spelled so in the format
    "mask": "mask_token_id",
}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_SPACE = "\u2581"  # stands for a space in SentencePiece's tokens


@dataclass(frozen=True)
class _ByteLevel:
    """How a kind of byte-level BPE cuts text before it merges: what ``tokenizer.ggml.pre`` stands for."""

    cut: pre_tokenizers.PreTokenizer
    normalizer: normalizers.Normalizer | None = None
    whole_words: bool = False  # a word that is a token is not merged from its parts
    bos: bool = False  # put in front of a text where the file does not say


def _cut(digits: str) -> pre_tokenizers.PreTokenizer:
    """Llama 3's regular expression, in which ``digits`` stand for numbers."""
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
    rest = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = pre_tokenizers.Split(Regex(f"{words}|{digits}|{rest}"), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_BYTE_LEVEL = {
    "gpt-2": _ByteLevel(_GPT2),
    "smollm": _ByteLevel(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2])),
    "llama-bpe": _ByteLevel(_cut(r"\p{N}{1,3}"), whole_words=True, bos=True),
    "qwen2": _ByteLevel(_cut(r"\p{N}"), normalizers.NFC()),
}


def read_gguf_text(file: GgufFile) -> TextFiles | None:
    """The text side of a file, None when it has no tokenizer.

    Byte-level BPE ("gpt2") of the kinds above and SentencePiece BPE ("llama") can be read. Another kind is an error and
    not a model without its tokenizer: whoever ran that would find out only by its answers.

    Raises:
        BadInput: another kind, or a table is missing, damaged or contradicts another one.
    """
    kind = file.get(f"{_KEY}model", str) or "none"
    if kind == "none":
        return None
    if kind not in ("gpt2", "llama"):
        raise BadInput(f"{file.path} has a tokenizer of kind {kind!r}; gpt2 and llama can be read")
    vocabulary, kinds = _tokens(file)
    ids = _special_ids(file, len(vocabulary))
    build = _byte_level if kind == "gpt2" else _sentence_piece
    tokenizer, bos = build(file, vocabulary, kinds)
    _add_tokens(tokenizer, vocabulary, kinds)
    _put_around(file, tokenizer, ids, bos)
    return TextFiles(tokenizer.to_str(), file.get("tokenizer.chat_template", str), ids)


def _tokens(file: GgufFile) -> tuple[dict[str, int], list[int]]:
    """Ids by token, in their order, and each token's type."""
    tokens = file.items(f"{_KEY}tokens", str)
    kinds = file.items(f"{_KEY}token_type", int) or [_NORMAL] * len(tokens)
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if not tokens or len(kinds) != len(tokens) or len(vocabulary) != len(tokens):
        sizes = f"{len(tokens)} tokens, {len(vocabulary)} of them different, and {len(kinds)} types"
        raise BadInput(f"{file.path} has {sizes} in its tokenizer; as many of each were expected")
    return vocabulary, kinds


def _add_tokens(tokenizer: Tokenizer, vocabulary: Mapping[str, int], kinds: list[int]) -> None:
    """Tokens that are never split: control tokens, which do not show in decoded text, and user-defined ones."""
    whole = (_UNKNOWN, _CONTROL, _USER_DEFINED)
    found = [(token, kind) for token, kind in zip(vocabulary, kinds, strict=True) if kind in whole]
    tokenizer.add_tokens([AddedToken(token, special=kind != _USER_DEFINED, normalized=False) for token, kind in found])


def _special_ids(file: GgufFile, size: int) -> dict[str, int]:
    found = {role: file.get(_KEY + key, int) for role, key in _ROLES.items()}
    ids = {role: id for role, id in found.items() if id is not None}
    for role, id in ids.items():
        if not 0 <= id < size:
            raise BadInput(f"{file.path} has {_KEY}{_ROLES[role]} = {id}; an id below {size} was expected")
    return ids


def _byte_level(file: GgufFile, vocabulary: dict[str, int], kinds: list[int]) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether it puts bos in front of a text unless the file says otherwise."""
    name = file.get(f"{_KEY}pre", str)
    if name not in _BYTE_LEVEL:
        hint = "export the model from its Hugging Face folder"
        raise BadInput(f"{file.path} cuts text as {name!r}; {', '.join(_BYTE_LEVEL)} are known: {hint}")
    spelled = (merge.partition(" ") for merge in file.items(f"{_KEY}merges", str))
    merges = [(first, second) for first, _, second in spelled]
    how = _BYTE_LEVEL[name]
    tokenizer = _bpe(file, vocabulary, merges, ignore_merges=how.whole_words)
    if how.normalizer is not None:
        tokenizer.normalizer = how.normalizer
    tokenizer.pre_tokenizer = how.cut
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, how.bos


def _sentence_piece(file: GgufFile, vocabulary: dict[str, int], kinds: list[int]) -> tuple[Tokenizer, bool]:
    """The tokenizer, and that it puts bos in front of a text unless the file says otherwise."""
    scores = file.items(f"{_KEY}scores", float)
    if len(scores) != len(kinds):
        raise BadInput(f"{file.path} has {len(scores)} scores for {len(kinds)} tokens; as many were expected")
    normal = {t: score for t, score, kind in zip(vocabulary, scores, kinds, strict=True) if kind == _NORMAL}
    unknown = next((token for token, kind in zip(vocabulary, kinds, strict=True) if kind == _UNKNOWN), None)
    options = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": _BYTE in kinds}
    tokenizer = _bpe(file, vocabulary, _merges(normal), **options)
    prefix = file.get(f"{_KEY}add_space_prefix", bool) is not False
    spaces = [normalizers.Prepend(_SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", _SPACE)])
    undo = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*undo, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer, True


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """What SentencePiece merges: any two tokens that make a third one, the highest score of that first."""
    pairs = [
        (score, token[:i], token[i:])
        for token, score in scores.items()
        for i in range(1, len(token))
        if token[:i] in scores and token[i:] in scores
    ]
    pairs.sort(key=lambda pair: -pair[0])
    return [(first, second) for _, first, second in pairs]


def _bpe(file: GgufFile, vocabulary: dict[str, int], merges: list[tuple[str, str]], **options: Any) -> Tokenizer:
    try:
        return Tokenizer(BPE(vocabulary, merges, **options))
    except Exception as e:  # the library raises plain Exception
        raise BadInput(f"{file.path} has a damaged tokenizer ({first_line(e)}); fetch it again") from None


def _put_around(file: GgufFile, tokenizer: Tokenizer, ids: Mapping[str, int], bos: bool) -> None:
    """Have bos and eos put around every text, as far as the file asks for it."""
    wanted = {"bos": file.get(f"{_KEY}add_bos_token", bool), "eos": file.get(f"{_KEY}add_eos_token", bool)}
    if wanted["bos"] is None:
        wanted["bos"] = bos and "bos" in ids
    names = {}
    for role in [role for role, on in wanted.items() if on]:
        if role not in ids:
            raise BadInput(f"{file.path} asks for {role} around texts and lacks {_KEY}{_ROLES[role]}")
        names[role] = tokenizer.id_to_token(ids[role])
    if not names:
        return
    around = [*([names["bos"]] if "bos" in names else []), "$A", *([names["eos"]] if "eos" in names else [])]
    pair = [*around, *("$B" if part == "$A" else part for part in around)]
    special = [(name, ids[role]) for role, name in names.items()]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, pair=pair, special_tokens=special)
