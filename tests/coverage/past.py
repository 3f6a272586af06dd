"""Families with past keys and values: a step of decoding, as one exports it for a cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.coverage import decoders, seq2seq
from tests.coverage.family import HEAD, HEADS, HIDDEN, LAYERS, SEVERAL, Expected, Family, Input, Output, ids, mask
from tests.coverage.library import Library

if TYPE_CHECKING:
    from torch import nn

_ATTENDED = (Input("encoder_hidden_states", ("batch", "source", HIDDEN)), mask("encoder_attention_mask", "source"))
_WHOLE = {family.name: family for family in (*decoders.FAMILIES, *seq2seq.FAMILIES)}


@dataclass(frozen=True)
class Cached:
    """A model of the library that takes its cache as tensors and gives the longer ones."""

    model: Library
    layers: int

    def __call__(self, attention: str) -> nn.Module:
        from tests.coverage.wrappers import WithPast

        return WithPast(self.model(attention), self.layers)


def _decoder(name: str, layers: int, key_heads: int = HEADS) -> Family:
    """A family of decoders, with its cache."""
    whole = _WHOLE[name]
    return _cached(f"{name}-past", whole.build, layers, key_heads, (), sites=whole.sites, attention=whole.attention)


def _of_seq2seq(name: str, layers: int, final_norms: int) -> Family:
    """The decoder of a family that has an encoder too, whose states and mask it is given."""
    whole = _WHOLE[name]
    assert isinstance(whole.build, Library)
    decoder, sites = replace(whole.build, part="decoder"), Expected(2 * layers, 3 * layers + final_norms, layers)
    return _cached(f"{name}-decoder-past", decoder, layers, HEADS, _ATTENDED, sites=sites, attention=whole.attention)


def _cached(name: str, model: Any, layers: int, heads: int, attended: tuple[Input, ...], **rest: Any) -> Family:
    parts = [f"{part}_{n}" for n in range(layers) for part in ("key", "value")]
    past = (Input(f"past_{part}", ("batch", heads, "past", HEAD)) for part in parts)
    return Family(
        name,
        Cached(model, layers),
        (ids(), mask(length="total"), *attended, *past),
        (Output("states", "attention_mask"), *(Output(f"present_{part}") for part in parts)),
        **rest,
    )


FAMILIES = (
    _decoder("llama", SEVERAL, key_heads=2),
    _decoder("gpt2", LAYERS),
    _of_seq2seq("bart", LAYERS, final_norms=1),
    _of_seq2seq("t5", SEVERAL, final_norms=1),
)
