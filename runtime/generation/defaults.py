"""The settings that an artifact's manifest recommends, as a ``GenerationConfig``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.generation.config import GenerationConfig

_ROLES = ("eos", "pad", "bos")


def recommended(manifest: Mapping[str, Any], *, source: bool = False) -> GenerationConfig:
    """What the manifest's "generation" says, with its special tokens where that names none.

    Args:
        manifest: An artifact's onnxsmith.json.
        source: Whether the model reads a source text: then the lengths of the file count one start token, and
            without one they count a prompt, so that they say nothing of new tokens.

    Raises:
        BadInput: a value is broken, or contradicts another.
    """
    found = manifest.get("generation", {})
    if not isinstance(found, dict):
        raise BadInput(f"the manifest's 'generation' is a {type(found).__name__}; export the model again")
    known = {field.name for field in fields(GenerationConfig)}
    given = {name: value for name, value in found.items() if name in known and value is not None}
    for role in _ROLES:
        token = manifest.get("special_tokens", {}).get(role)
        given.setdefault(f"{role}_token_id", token)
    lengths = _lengths(found) if source else {}
    try:
        return GenerationConfig(**{**lengths, **{k: v for k, v in given.items() if v is not None}})
    except BadUsage as error:
        raise BadInput(f"the manifest's generation settings: {error}; correct or remove them") from error


def _lengths(found: Mapping[str, Any]) -> dict[str, Any]:
    """Lengths of a target as numbers of new tokens."""
    pairs = (("min_length", "min_new_tokens"), ("max_length", "max_new_tokens"))
    known = {ours: found[theirs] - 1 for theirs, ours in pairs if type(found.get(theirs)) is int}
    return {name: count for name, count in known.items() if count > 0}
