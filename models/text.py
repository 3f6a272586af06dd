"""The text side of a checkpoint: its tokenizer, chat template and special tokens, whatever files they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from onnxsmith.errors import BadInput, first_line
from onnxsmith.models.json_file import read_json
from onnxsmith.models.special_tokens import default_names, given_names, token_ids
from onnxsmith.models.vocabulary import build_tokenizer, read_file


@dataclass(frozen=True)
class TextFiles:
    """``tokenizer`` holds the contents of a tokenizer.json, ``chat_template`` those of a Jinja template.

    ``special_tokens`` gives ids by role: "bos", "eos", "pad", "unk", "cls", "sep" and "mask", those that there are.
    ``padding_side`` is where shorter texts of a batch are filled up.
    """

    tokenizer: str
    chat_template: str | None = None
    special_tokens: Mapping[str, int] = field(default_factory=dict)
    padding_side: Literal["right", "left"] = "right"


def read_text(folder: Path, config: Mapping[str, Any]) -> TextFiles | None:
    """The text side of a Hugging Face folder with that config.json; None when it has no tokenizer.

    tokenizer.json comes first, then vocab.txt, then vocab.json with merges.txt, then T5's and Marian's SentencePiece.

    Raises:
        BadInput: a file is broken, contradicts another one, or is of a kind that cannot be read.
    """
    settings = _json(folder / "tokenizer_config.json")
    named = _json(folder / "special_tokens_map.json") | settings
    given, model_type = given_names(named), config.get("model_type")
    path = folder / "tokenizer.json"
    if path.exists():
        text = read_file(path)
        tokenizer = parse_tokenizer(text, path)
    else:
        built = build_tokenizer(folder, settings, given, model_type)
        if built is None:
            return None
        text, tokenizer = built.to_str(), built
    side = settings.get("padding_side", "right")
    if side not in ("right", "left"):
        raise BadInput(f"{folder / 'tokenizer_config.json'} has padding_side {side!r}; expected right or left")
    fallbacks = (_json(folder / "generation_config.json"), config)
    ids = token_ids(tokenizer, default_names(model_type) | given, fallbacks)
    return TextFiles(text, _chat_template(folder, settings), ids, side)


def parse_tokenizer(text: str, source: object) -> Tokenizer:
    """The contents of a tokenizer.json as a tokenizer. Raises BadInput that names the ``source``."""
    try:
        return Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as e:  # plain Exception, and for some damaged tables a panic, which is none
        raise BadInput(f"{source} is no tokenizer.json that can be read ({first_line(e)}); fetch it again") from None


def check_vocabulary(text: TextFiles, rows: object) -> None:
    """Every id of the tokenizer, added tokens included, has a row of the embedding table, ``rows`` in all.

    A larger table is usual: it is padded to a round number. Raises BadInput otherwise.
    """
    ids = parse_tokenizer(text.tokenizer, "the tokenizer").get_vocab(with_added_tokens=True).values()
    largest = max((*ids, *text.special_tokens.values()), default=0)
    if isinstance(rows, int) and largest >= rows:
        hint = "take the tokenizer that the model was trained with"
        raise BadInput(f"the tokenizer has ids up to {largest}, the model's vocab_size is {rows}; {hint}")


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The file chat_template.jinja, else chat_template.json, else the entry of tokenizer_config.json."""
    if (folder / "chat_template.jinja").exists():
        return read_file(folder / "chat_template.jinja")
    found = _json(folder / "chat_template.json").get("chat_template", settings.get("chat_template"))
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise BadInput(f"{folder} has a chat_template that is a {type(found).__name__}; a string was expected")
    return found


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path, dict) if path.exists() else {}
    return found
