"""Special tokens: which token plays which role, and its id.

The roles are those of Hugging Face's tokenizers (``bos_token`` and so on): the checkpoint's own files name them, and
where they do not, the tokenizer of that ``model_type`` has names of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer

from onnxsmith.errors import BadInput

ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")

Names = dict[str, AddedToken | None]  # by role; None says that there is no such token

_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
_GPT2 = dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
_SENTENCEPIECE = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
_DEFAULTS = {
    "bert": _BERT,
    "distilbert": _BERT,
    "roberta": _ROBERTA,
    "bart": _ROBERTA,
    "gpt2": _GPT2,
    "t5": _SENTENCEPIECE,
    "marian": _SENTENCEPIECE,
}


def default_names(model_type: object) -> Names:
    """The names of a family's tokenizer where its files are silent, none for a family that has no usual ones."""
    names = _DEFAULTS.get(model_type, {}) if isinstance(model_type, str) else {}
    # the mask of these takes the space before it, so that it stands for a word with its space
    return {role: _token(name, lstrip=name == "<mask>") for role, name in names.items()}


def given_names(settings: Mapping[str, Any]) -> Names:
    """The names in tokenizer_config.json or special_tokens_map.json. Raises BadInput for what is no token."""
    keys = {role: f"{role}_token" for role in ROLES}
    return {role: read_token(settings[key], key) for role, key in keys.items() if key in settings}


def read_token(value: object, key: str) -> AddedToken | None:
    """A token as Hugging Face writes it: text, an object with "content", or null."""
    if value is None:
        return None
    entry = value if isinstance(value, dict) else {"content": value}
    content = entry.get("content")
    if isinstance(content, str) and content:
        flags = {flag: entry.get(flag) is True for flag in ("single_word", "lstrip", "rstrip", "normalized")}
        return _token(content, special=entry.get("special", True) is True, **flags)
    raise BadInput(f"{key} is {value!r}; a token or an object with its content was expected")


def _token(content: str, *, special: bool = True, normalized: bool = False, **flags: bool) -> AddedToken:
    return AddedToken(content, special=special, normalized=normalized, **flags)


def token_ids(tokenizer: Tokenizer, names: Names, fallbacks: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Ids by role: of the named tokens that the tokenizer knows, else what a config says.

    Args:
        fallbacks: configs, the first one counts, with a bos_token_id, eos_token_id or pad_token_id; the first of them
            where there are several.
    """
    found = {role: tokenizer.token_to_id(token.content) for role, token in names.items() if token is not None}
    ids = {role: id for role, id in found.items() if id is not None}
    for config in fallbacks:
        for role in ("bos", "eos", "pad"):
            value = config.get(f"{role}_token_id")
            first = value[0] if isinstance(value, list) and value else value
            if type(first) is int and first >= 0 and names.get(role, ...) is not None:
                ids.setdefault(role, first)
    return ids
