"""Buffers on a device, here the CPU: what a graph moves is what numpy moves, and tokens are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnxsmith.runtime.feeds import TensorInfo
from onnxsmith.runtime.generation import buffers, decoder
from onnxsmith.runtime.generation.buffers import Buffers, DeviceCache, SharedCache
from onnxsmith.runtime.generation.interface import Interface
from onnxsmith.runtime.generation.moved import taken
from onnxsmith.runtime.model import LoadedModel
from tests.generation import compiled, rows_of

NAMES = Interface(past=("k", "v"), present=("k_out", "v_out"), in_place=True)
LENGTHS = (9, 5, 1, 7)
MODELS = [
    ("gpt2", "cpu", "fp32"),
    ("gpt2", "cuda", "fp16"),
    *(pytest.param((name, "cuda", "fp16"), marks=pytest.mark.slow, id=name) for name in ("mistral-wide", "bart")),
]
SAMPLES = {"do_sample": True, "seed": 3, "num_return_sequences": 3}
BEAMS = {"num_beams": 4, "num_return_sequences": 2}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "STEP", 4)


class Bound:
    """What is bound for a run, by name."""

    def __init__(self) -> None:
        self.values: dict[str, ort.OrtValue] = {}

    def bind_ortvalue_input(self, name: str, value: ort.OrtValue) -> None:
        self.values[name] = value

    bind_ortvalue_output = bind_ortvalue_input


def contents(cache: Buffers, columns: int) -> list[np.ndarray]:
    """Keys and values as the next run finds them; past and present are one."""
    bound = Bound()
    cache.bind(bound, columns)  # type: ignore[arg-type]
    for past, present in zip(NAMES.past, NAMES.present, strict=True):
        assert bound.values[past] is bound.values[present]
    return [bound.values[name].numpy().copy() for name in NAMES.past]


def both(dtype: str, rows: int, columns: int, names: Interface = NAMES) -> tuple[SharedCache, DeviceCache]:
    """Caches of so many rows with the same random keys and values of 2 heads of 8."""
    pasts = [TensorInfo(name, dtype, ("batch", 2, "past", 8)) for name in names.past]
    caches = SharedCache(names, pasts), DeviceCache(names, pasts, "cpu")
    for cache in caches:
        random, bound = np.random.default_rng(5), Bound()
        cache.reset(rows)
        cache.bind(bound, columns)  # type: ignore[arg-type]
        for name in names.past:
            value = bound.values[name]
            value.update_inplace((random.standard_normal(value.shape()) * 50).astype(dtype))
    return caches


def check_same(caches: tuple[SharedCache, DeviceCache], columns: int) -> None:
    """To the byte where a column counts; a number elsewhere."""
    shared, device = (contents(cache, columns) for cache in caches)
    for own, found in zip(device, shared, strict=True):
        assert own.shape == found.shape and own.dtype == found.dtype and np.isfinite(own).all()
        np.testing.assert_array_equal(own[:, :, :columns], found[:, :, :columns])
    assert caches[0].nbytes == caches[1].nbytes and caches[0].capacity == caches[1].capacity


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_growing(dtype: str) -> None:
    caches = both(dtype, 3, 4)
    before = contents(caches[1], 4)
    check_same(caches, 4)
    shared, device = (contents(cache, 5) for cache in caches)
    for old, own, found in zip(before, device, shared, strict=True):
        np.testing.assert_array_equal(own, found)  # the room too, which is zero
        np.testing.assert_array_equal(own[:, :, :4], old)
        assert own.shape == (3, 2, 8, 8) and not own[:, :, 4:].any()


@pytest.mark.parametrize("rows", [[0, 1, 2], [2], [1, 1], [2, 0, 0], [1, 2, 0], [0, 0, 1, 2, 2, 1]], ids=str)
def test_selecting_rows(rows: list[int]) -> None:
    caches = both("float16", 3, 8)
    before = contents(caches[0], 8)
    for cache in caches:
        cache.select(np.array(rows), 7, np.zeros(len(rows), np.int64))
    check_same(caches, 7)
    for own, old in zip(contents(caches[1], 7), before, strict=True):
        np.testing.assert_array_equal(own[:, :, :7], old[rows, :, :7])


def test_rolling() -> None:
    names = Interface(past=NAMES.past, present=NAMES.present, in_place=True, window=6, rolls=True)
    caches = both("float16", 3, 12, names)
    before = contents(caches[1], 12)
    starts, counts = np.array([7, 0, 3]), np.array([5, 2, 5])
    for cache in caches:
        cache.roll(starts, counts)
    shared, device = (contents(cache, 5) for cache in caches)
    for own, found, old in zip(device, shared, before, strict=True):
        for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
            np.testing.assert_array_equal(own[row, :, :count], old[row, :, start : start + count])
            np.testing.assert_array_equal(own[row, :, :count], found[row, :, :count])
        assert own.shape == found.shape and np.isfinite(own).all()


def test_rows_of_any_tensor() -> None:
    x = np.arange(24, dtype=np.float16).reshape(4, 3, 2)
    found = taken(ort.OrtValue.ortvalue_from_numpy(x), np.array([3, 3, 0]), "cpu")
    np.testing.assert_array_equal(found.numpy(), x[[3, 3, 0]])


def on_device(interface: Any, inputs: Any, device: Any, **_: Any) -> DeviceCache:
    """In place of ``make_cache``: what a graph on CUDA gets, on the CPU."""
    return DeviceCache(interface, [next(i for i in inputs if i.name == name) for name in interface.past], device)


def generated(model: LoadedModel, settings: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Of several rows, of one, and of one that begins as that did; nothing is kept of an earlier call."""
    model.__dict__.pop("generation", None)
    rows = rows_of(LENGTHS)
    found = [model.generate(prompts, max_new_tokens=16, **settings) for prompts in (rows, rows[0], rows[0][:7])]
    model.__dict__.pop("generation")
    return [(one.sequences, one.scores, one.timing.bytes) for one in found]


@pytest.mark.parametrize("settings", [{}, SAMPLES, BEAMS], ids=["greedy", "sampling", "beams"])
@pytest.mark.parametrize("model", MODELS)
def test_the_same_tokens(model: tuple[str, ...], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = compiled(*model)
    assert loaded.generation.interface.in_place
    shared = generated(loaded, settings)
    monkeypatch.setattr(decoder, "make_cache", on_device)
    assert generated(loaded, settings) == shared
