"""Steps of fixed shapes, as a CUDA graph needs them, here on the CPU: ordinary tokens, on memory that stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.lower.steady import takes_wide_masks
from onnxsmith.runtime.generation import buffers, steady
from onnxsmith.runtime.model import LoadedModel
from tests.generation import compiled, ours, rows_of, write_in_place
from tests.test_cache_pass import compiled as passed
from tests.test_cache_pass import plain
from tests.toy import parsed

LENGTHS = (9, 5, 1, 7)
MODELS = [("gpt2", "cpu", "fp32"), ("gpt2", "cuda", "fp16"), ("llama", "cuda", "fp16")]
SAMPLES = {"do_sample": True, "seed": 3, "num_return_sequences": 3}
WINDOW = pytest.param("window", False, marks=pytest.mark.slow)
BEAMS = {"num_beams": 4, "num_return_sequences": 2}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "STEP", 4)


def captures(model: LoadedModel) -> LoadedModel:
    """As ``load(.., cuda_graph=True)`` gives it on CUDA, with nothing kept of an earlier call."""
    return replace(model, cuda_graph=True)


def generated(model: LoadedModel, settings: dict[str, Any]) -> list[Any]:
    """Of several rows, of one, and of one that begins as that did."""
    rows = rows_of(LENGTHS)
    found = [model.generate(prompts, max_new_tokens=16, **settings) for prompts in (rows, rows[0], rows[0][:7])]
    return [(one.sequences, np.round(one.scores or (), 4).tolist()) for one in found]  # the graph sums in another order


@pytest.mark.parametrize("settings", [{}, SAMPLES, BEAMS], ids=["greedy", "sampling", "beams"])
@pytest.mark.parametrize("which", MODELS, ids="-".join)
def test_the_same_tokens(which: tuple[str, ...], settings: dict[str, Any]) -> None:
    model = compiled(*which)
    assert model.generation.interface.steady
    found = captures(model)
    assert generated(found, settings) == generated(replace(model), settings)
    assert generated(found, settings) == generated(replace(model), settings)  # on the buffers of the first time


def test_graphs_outlive_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair of rows and buffers has a number of its own, every first run none, and a second call no new one."""
    numbers: list[int] = []
    released: list[int] = []
    options = steady.graph_options

    def told(number: int = -1) -> Any:
        numbers.append(number)
        return options(number)

    monkeypatch.setattr(steady, "graph_options", told)
    session = type(compiled(*MODELS[0]).session)
    monkeypatch.setattr(session, "release_captured_graph", lambda self, number: released.append(number))
    model, rows = captures(compiled(*MODELS[0])), rows_of((3, 2))
    settings: dict[str, Any] = {"max_new_tokens": 10, "eos_token_id": []}
    first = model.generate(rows, **settings).sequences
    assert numbers == [-1, -1, 2, 2, 2, -1, 3, 3, 3]  # buffers of 4, 8 and 16 columns
    assert released == [1, 2]
    numbers.clear()
    assert model.generate(rows, **settings).sequences == first
    assert numbers == [3] * 9 and released == [1, 2]
    numbers.clear()
    model.generate(rows[:1], max_new_tokens=4, eos_token_id=[])
    assert model.generate(rows, **settings).sequences == first
    assert numbers == [-1, -1, 5] + [3] * 9


@pytest.mark.parametrize(("kind", "wanted"), [("learned", True), ("llama", True), ("alibi", False), WINDOW])
def test_which_graphs_take_wide_masks(kind: str, wanted: bool) -> None:
    """A bias goes by the length of the mask, and what rolls moves. Verification runs wide masks where it says so."""
    cache = recorded(passed(plain(kind)).model)
    assert cache is not None and cache.layout == "in-place" and cache.steady is wanted


def test_a_source_of_any_length_is_no_fixed_shape() -> None:
    assert not compiled("bart", "cuda", "fp16").generation.interface.steady


@pytest.mark.parametrize(
    ("made", "fine"),
    [
        ("c = Cast<to=9>(attention_mask) d = Cast<to=6>(c) y = ReduceSum(d)", True),
        ("c = Shape(attention_mask) y = Cast<to=1>(c)", True),
        ("y = CumSum(attention_mask, axis)", False),
        ("c = Shape(attention_mask) y = ConstantOfShape(c)", False),
        ("c = Cast<to=1>(attention_mask) d = Mul(c, c) y = Add(d, c)", False),
    ],
)
def test_readers_of_the_mask(made: str, fine: bool) -> None:
    head = '<ir_version: 10, opset_import: ["" : 21]>\ng (int64[B,T] attention_mask, int64 axis) => (y) {'
    cache = recorded(passed(plain("learned")).model)
    assert cache is not None
    model: ir.Model = parsed(f"{head} {made} }}")
    assert takes_wide_masks(model.graph, cache) is fine


def test_what_a_cuda_graph_wants(tmp_path: Path) -> None:
    folder = write_in_place(tmp_path / "a")
    with pytest.raises(BadUsage, match="a CUDA graph is for cuda, and .* is run on cpu; leave cuda_graph out"):
        onnxsmith.load(folder, cuda_graph=True)
    for path in (folder, ours("llama").artifact.folder):
        assert path is not None
        with pytest.raises(BadInput, match="no cache in place with steps of fixed shapes"):
            onnxsmith.load(path, provider="cuda", cuda_graph=True)
