"""How to generate, under the names of Hugging Face's ``GenerationConfig``.

https://huggingface.co/docs/transformers/main_classes/text_generation says what each of them means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from onnxsmith.errors import BadUsage

Ids = tuple[int, ...]
Words = tuple[Ids, ...]
Texts = tuple[str, ...]
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")


@dataclass(frozen=True)
class GenerationConfig:
    """The settings of one call; () or None switches a thing off, and one id or text stands for a list of one.

    ``max_new_tokens`` of None goes on for DEFAULT_NEW_TOKENS, or to the model's last position where that comes first.
    ``top_k`` of 0 keeps every token. ``seed`` of None draws differently each time. ``prompt_lookup_num_tokens`` is how
    many tokens are guessed at a time from the text itself (Saxena 2023), which changes the speed and not the tokens.

    Raises:
        BadUsage: a value is of the wrong kind or out of its range, or two of them contradict each other.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int = 1
    eos_token_id: Ids = ()
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: Ids = ()
    suppress_tokens: Ids = ()
    begin_suppress_tokens: Ids = ()
    bad_words_ids: Words = ()
    stop_strings: Texts = ()
    prompt_lookup_num_tokens: int = 0
    max_matching_ngram_size: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _listed(getattr(self, field.name), str(field.type))
            expected, fine = _expectation(field.name, str(field.type))
            if not fine(value):
                raise BadUsage(f"{field.name}={value!r}: expected {expected}")
            object.__setattr__(self, field.name, value)
        for wrong, why in self._contradictions():
            if wrong:
                raise BadUsage(why)

    def _contradictions(self) -> tuple[tuple[bool, str], ...]:
        beams, returned, least, most = (
            self.num_beams,
            self.num_return_sequences,
            self.min_new_tokens,
            self.max_new_tokens,
        )
        return (
            (self.do_sample and beams > 1, f"num_beams={beams} and do_sample contradict each other; give one of them"),
            (self.do_sample and self.temperature == 0, "temperature=0 cannot be sampled; leave it out to be greedy"),
            (
                returned > beams and not self.do_sample,
                f"num_return_sequences={returned} needs do_sample, or num_beams of at least {returned}",
            ),
            (most is not None and least > most, f"min_new_tokens={least} is more than max_new_tokens={most}"),
            (
                self.prompt_lookup_num_tokens > 0 and (beams > 1 or self.do_sample),
                "prompt_lookup_num_tokens is for greedy decoding; leave out num_beams and do_sample",
            ),
        )

    @property
    def start(self) -> int:
        """The token that a target starts with. Raises BadUsage where the checkpoint names none."""
        start = self.decoder_start_token_id if self.decoder_start_token_id is not None else self.bos_token_id
        if start is None:
            raise BadUsage("the checkpoint names no token that a target starts with; give decoder_start_token_id")
        return start

    def overridden(self, values: Mapping[str, Any]) -> GenerationConfig:
        """These settings with a caller's on top; None leaves a setting as it is.

        What the caller chooses decides the way, whatever the checkpoint recommends: an option of sampling samples, and
        ``num_beams`` searches.

        Raises:
            BadUsage: an unknown name, or as the class does.
        """
        given = {name: value for name, value in values.items() if value is not None}
        known = [field.name for field in fields(self)]
        if unknown := [name for name in given if name not in known]:
            raise BadUsage(f"no generation setting {unknown[0]!r}; known are {', '.join(known)}")
        samples = any(name in given for name in SAMPLING)
        if samples or "num_beams" in given or "prompt_lookup_num_tokens" in given:
            given.setdefault("do_sample", samples)
        if given.get("do_sample") or given.get("prompt_lookup_num_tokens"):
            given.setdefault("num_beams", 1)
        return replace(self, **given)


_Expectation = tuple[str, Callable[[Any], bool]]
_AT_LEAST_ONE = ("max_new_tokens", "num_beams", "num_return_sequences", "max_matching_ngram_size")
_ABOVE_ZERO = ("top_p", "repetition_penalty")
_SHARES = ("top_p", "min_p")
_TUPLES = ("Ids", "Words", "Texts")


def _listed(value: Any, kind: str) -> Any:
    """A list as a tuple, one thing as a tuple of it, and None as an empty one."""
    if kind not in _TUPLES:
        return value
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        return (value,)
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _expectation(name: str, kind: str) -> _Expectation:
    """What a setting of that annotation may hold: in words, and as a test."""
    if kind == "bool":
        return "true or false", lambda value: type(value) is bool
    if kind.startswith("bool |"):
        return "true, false or 'never'", lambda value: type(value) is bool or value == "never"
    if kind == "Ids":
        return "token ids", _are_ids
    if kind == "Words":
        return "lists of token ids", lambda value: all(word and _are_ids(word) for word in value)
    if kind == "Texts":
        return "texts", lambda value: all(isinstance(text, str) and text for text in value)
    return _number(name, kind)


def _number(name: str, kind: str) -> _Expectation:
    kinds = (int,) if kind.startswith("int") else (int, float)
    what = "a whole number" if kind.startswith("int") else "a number"
    if name == "length_penalty":
        return "a finite number", lambda value: type(value) in kinds and math.isfinite(value)
    least, most = int(name in _AT_LEAST_ONE), 1 if name in _SHARES else math.inf
    open_end = name in _ABOVE_ZERO
    words = f"{what} {'above' if open_end else 'of at least'} {least}" + (f" and at most {most}" if most == 1 else "")

    def fine(value: Any) -> bool:
        if value is None:
            return kind.endswith("None")
        inside = type(value) in kinds and least <= value <= most and math.isfinite(value)
        return inside and not (open_end and value == least)

    return words, fine


def _are_ids(value: object) -> bool:
    return isinstance(value, tuple) and all(type(id) is int and id >= 0 for id in value)
