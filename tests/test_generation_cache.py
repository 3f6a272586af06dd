"""The cache: in place or passed on, grown, shared between calls, rolled back; always the tokens of a fresh run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxsmith
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.generation import buffers, cache, decoder
from onnxsmith.runtime.model import LoadedModel
from tests.generation import EOS, ours, padded, rows_of, write_in_place

LENGTHS = (9, 5, 1, 7)
BEAMS = {"num_beams": 4, "num_return_sequences": 2}


@pytest.fixture
def in_place(tmp_path: Path) -> LoadedModel:
    return onnxsmith.load(write_in_place(tmp_path / "in-place"), threads=1)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "STEP", 4)


def uncached(model: LoadedModel, prompt: list[int], count: int) -> tuple[int, ...]:
    """Greedy decoding of an in-place graph that reads the whole text again for every token."""
    ids, empty = list(prompt), np.zeros((1, 2, 0, 8), np.float32)
    while len(ids) < len(prompt) + count and (ids[-1] != EOS or len(ids) == len(prompt)):
        feeds = {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "position_ids": np.arange(len(ids))[None],
        }
        ids.append(int(model.run({**feeds, "k": empty, "v": empty})["logits"][0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.usefixtures("small_steps")
def test_in_place_past_the_first_buffer(in_place: LoadedModel, side: str) -> None:
    rows = rows_of(LENGTHS)
    ids, mask = padded(rows, side)
    found = in_place.generate(ids, attention_mask=mask, max_new_tokens=30)
    assert list(found.sequences) == [uncached(in_place, row, 30) for row in rows]
    assert {len(row) for row in found.sequences} > {30}  # some leave the batch before


@pytest.mark.parametrize("which", ["in-place", "concat"])
def test_a_long_prompt_is_read_in_pieces(in_place: LoadedModel, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = in_place if which == "in-place" else ours("llama")
    prompts = rows_of((13, 12, 3))
    whole = [model.generate(prompt, max_new_tokens=8).sequences for prompt in prompts]
    monkeypatch.setattr(decoder, "PIECE", 4)
    sizes: list[int] = []
    monkeypatch.setattr(decoder.Decoder, "_run", counted(decoder.Decoder._run, sizes))
    model.generate(rows_of((2, 2)), max_new_tokens=1)  # a batch is read at once, and leaves nothing behind
    assert [model.generate(prompt, max_new_tokens=8).sequences for prompt in prompts] == whole
    assert max(sizes) == (4 if which == "in-place" else 13)


@pytest.mark.usefixtures("small_steps")
def test_memory_is_as_predicted(in_place: LoadedModel) -> None:
    """The prompt takes 12 columns of 9, then it doubles: 24, 48; keys and values of 2 heads of 8 float32."""
    found = in_place.generate(rows_of((9, 9)), max_new_tokens=20, eos_token_id=[])
    assert found.timing.bytes == 2 * 2 * 2 * 48 * 8 * 4
    assert [buffers.grown(0, 9), buffers.grown(12, 13), buffers.grown(24, 100)] == [12, 24, 100]


def passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let in-place graphs give a new present, which is the next past."""
    names: Callable[..., Any] = cache.PassedCache

    def make(interface: Any, inputs: Any, device: Any, **_: Any) -> Any:
        pasts = [next(info for info in inputs if info.name == name) for name in interface.past]
        return names(interface, pasts, device)

    monkeypatch.setattr(decoder, "make_cache", make)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("settings", [{}, BEAMS, {"do_sample": True, "seed": 3, "num_return_sequences": 3}], ids=str)
def test_in_place_as_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    folder = write_in_place(tmp_path / "a")
    shared = onnxsmith.load(folder, threads=1).generate(rows_of(LENGTHS), max_new_tokens=20, **settings)
    passed_on(monkeypatch)
    passed = onnxsmith.load(folder, threads=1).generate(rows_of(LENGTHS), max_new_tokens=20, **settings)
    assert shared.sequences == passed.sequences and shared.scores == passed.scores


@pytest.mark.parametrize("which", ["in-place", "concat"])
def test_a_shared_start_is_read_once(in_place: LoadedModel, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = in_place if which == "in-place" else ours("llama")
    (text,) = rows_of((12,), vocabulary=60)
    prompts = [text, text[:8] + [50, 51], text[:8], text, [59, *text]]
    fresh = []
    for prompt in prompts:
        model.generate(rows_of((2, 2), seed=1), max_new_tokens=1)  # a batch leaves nothing behind
        fresh.append(model.generate(prompt, max_new_tokens=8).sequences)
    read: list[int] = []
    monkeypatch.setattr(decoder.Decoder, "extend", counted(decoder.Decoder.extend, read))
    assert [model.generate(prompt, max_new_tokens=8).sequences for prompt in prompts] == fresh
    assert read == [2, 1, 4]  # of the first nothing is known any more, and the last shares nothing


def counted(method: Callable[..., Any], read: list[int]) -> Callable[..., Any]:
    """Of a method that takes tokens, the same; their numbers are written down."""

    def wrapped(self: Any, tokens: Any, *further: Any) -> Any:
        read.append(np.shape(tokens)[-1])
        return method(self, tokens, *further)

    return wrapped


def test_an_answer_is_in_the_cache_too(in_place: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a chat: the next prompt has the last one and its answer in it."""
    (prompt,) = rows_of((6,))
    answer = in_place.generate(prompt, max_new_tokens=5, eos_token_id=[]).sequences[0]
    longer = [*prompt, *answer, 40, 41]
    read: list[int] = []
    monkeypatch.setattr(decoder.Decoder, "extend", counted(decoder.Decoder.extend, read))
    found = in_place.generate(longer, max_new_tokens=8)
    assert read == [3]  # the last token of the answer was never read
    assert found.sequences == (uncached(in_place, longer, 8),)


@pytest.mark.parametrize("which", ["in-place", "concat", "t5"])
def test_guessing_changes_no_token(in_place: LoadedModel, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"in-place": in_place, "concat": ours("llama")}.get(which) or ours("t5")
    (text,) = rows_of((7,))
    settings: dict[str, Any] = {"max_new_tokens": 20, "repetition_penalty": 0.5}  # which makes it repeat itself
    expected = model.generate(text * 3, **settings)
    read: list[int] = []
    monkeypatch.setattr(decoder.Decoder, "extend_whole", counted(decoder.Decoder.extend_whole, read))
    found = model.generate(text * 3, prompt_lookup_num_tokens=4, **settings)
    assert found.sequences == expected.sequences
    assert max(read) > 1 and len(read) < len(found.sequences[0]) - 1  # and some guesses were right


def test_guessing_needs_all_logits(tmp_path: Path) -> None:
    model = onnxsmith.load(write_in_place(tmp_path / "a", last_only=True))
    with pytest.raises(BadUsage, match="needs the logits of all tokens"):
        model.generate([7, 8], prompt_lookup_num_tokens=3)


def test_the_last_position_is_the_end(tmp_path: Path) -> None:
    model = onnxsmith.load(write_in_place(tmp_path / "a", positions=12))
    found = model.generate(rows_of((5, 9)), eos_token_id=[])
    assert [len(row) for row in found.sequences] == [3, 3] and set(found.reasons) == {"length"}
    with pytest.raises(BadInput, match="a prompt has 12 tokens, and the model takes at most 11"):
        model.generate(rows_of((12,)))


def test_a_broken_record_is_refused(tmp_path: Path) -> None:
    for name, change, match in (
        ("a", {"past": ["k", "other"]}, "names 'other', which the graph lacks"),
        ("b", {"past": None}, "'cache' is not complete"),
    ):
        with pytest.raises(BadInput, match=match):
            onnxsmith.load(write_in_place(tmp_path / name, **change)).generate([7])
