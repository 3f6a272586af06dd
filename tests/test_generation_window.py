"""Rolling windows: buffers hold what a token sees and some more, and the tokens are those of the whole text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from onnxsmith.runtime.generation import buffers, decoder
from onnxsmith.runtime.model import LoadedModel
from tests.generation import compiled, padded, reference, rows_of

LENGTHS = (9, 14, 1, 12)
WINDOWS = {"mistral": 3, "mistral-wide": 5}
NEW = 25


@pytest.fixture(params=WINDOWS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of models whose rotary positions are outside the kernel, and inside; the buffers are small ones."""
    monkeypatch.setattr(buffers, "STEP", 4)
    monkeypatch.setattr(decoder, "PIECE", 5)
    return str(request.param)


def fresh(name: str) -> LoadedModel:
    """With buffers of this test's size, and nothing kept of an earlier call."""
    model = compiled(name)
    model.__dict__.pop("generation", None)
    return model


def columns(model: LoadedModel, size: int) -> int:
    """So many bytes, in columns of 2 layers of keys and values of 2 heads of float32."""
    width = next(info for info in model.inputs if info.name == "past_key_values.0.key").dims[3]
    assert isinstance(width, int)
    return size // (2 * 2 * 2 * width * 4)


def test_longer_than_the_window(name: str) -> None:
    rows, model = rows_of(LENGTHS), fresh(name)
    assert model.generation.interface.rolls and model.generation.interface.window == WINDOWS[name]
    expected = reference(name, rows, max_new_tokens=NEW)
    for side in ("left", "right"):
        ids, mask = padded(rows, side)
        assert list(model.generate(ids, attention_mask=mask, max_new_tokens=NEW).sequences) == expected


def test_the_buffers_stay_small(name: str) -> None:
    """But for the prompts of a batch, which are read at once."""
    model, (text,) = fresh(name), rows_of((12,))
    for rows, width in (([text], WINDOWS[name] + buffers.STEP), ([text, text[:3]], len(text))):
        found = model.generate(rows, max_new_tokens=NEW, eos_token_id=[])
        assert {len(row) for row in found.sequences} == {NEW}
        assert columns(model, found.timing.bytes) == len(rows) * width


def test_a_shared_start_that_was_dropped_is_read_again(name: str) -> None:
    (text,) = rows_of((14,))
    settings: dict[str, Any] = {"max_new_tokens": NEW, "eos_token_id": []}
    prompts = [text, [*text, 40], text[:9], [*text[:9], 41, 42]]
    alone = [fresh(name).generate(prompt, **settings).sequences for prompt in prompts]
    model = fresh(name)
    assert [model.generate(prompt, **settings).sequences for prompt in prompts] == alone


def test_beams(name: str) -> None:
    settings: dict[str, Any] = {"num_beams": 3, "max_new_tokens": NEW, "num_return_sequences": 2}
    rolled = fresh(name).generate(rows_of(LENGTHS), **settings)
    whole = fresh(name)
    whole.generation.interface = replace(whole.generation.interface, rolls=False)
    assert rolled.sequences == whole.generate(rows_of(LENGTHS), **settings).sequences
