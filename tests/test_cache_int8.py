"""A cache in int8: a quarter of the bytes, logits that stay near, and everything that a cache does."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxsmith
from onnxsmith.compiler.report import OptimizeReport
from onnxsmith.compiler.split import optimize_split
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.lower import in_place
from onnxsmith.runtime.artifact import open_artifact
from onnxsmith.runtime.generation import buffers
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.model import LoadedModel
from tests.command import Invoke
from tests.generation import ENCODER_DECODERS, compiled, padded, rows_of
from tests.tiny import write_mlp

NAMES = ("llama", "gpt2", "mistral-wide")  # turned in the kernel, with learned positions, with a window that rolls
LENGTHS = (9, 5, 1, 7)
NEW = 12


def source(name: str) -> Path:
    folder = compiled(name).artifact.model.parent
    return next(parent / f"{name}-plain" for parent in folder.parents if (parent / f"{name}-plain").exists())


def samples(name: str) -> dict[str, NDArray[np.int64]]:
    inputs = open_artifact(source(name)).manifest["inputs"]
    ids = np.array(rows_of([24] * 32, seed=1))
    return {spec["name"]: np.ones_like(ids) if "mask" in spec["name"] else ids for spec in inputs}


@functools.cache
def made(name: str) -> tuple[Path, OptimizeReport]:
    folder = source(name).with_name(f"{name}-int8-cache")
    return folder, onnxsmith.optimize(
        source(name), folder, cache=True, cache_precision="int8", calibrate=samples(name), tuned=False
    )


def fresh(name: str) -> LoadedModel:
    return onnxsmith.load(made(name)[0], threads=1)


@pytest.mark.parametrize("name", [*NAMES, "t5"])
def test_logits_stay_near_and_what_comes_before_is_exact(name: str) -> None:
    parity = made(name)[1].parity
    assert parity is not None and parity.evidence and parity.fine
    (near,) = parity.closeness
    assert 0 < near.relative_rms < 0.05 and near.kl is not None and near.kl < 0.001


@pytest.mark.parametrize("name", [*NAMES, "t5"])
def test_keys_and_values_take_a_quarter(name: str) -> None:
    model, rows = fresh(name), rows_of(LENGTHS)
    entry = model.manifest["cache"]
    assert {info.dtype for info in model.inputs if info.name in entry["past"]} == {"int8"} and entry["dtype"] == "int8"
    found, whole = (m.generate(rows, max_new_tokens=NEW, eos_token_id=[]) for m in (model, compiled(name)))
    assert [len(row) for row in found.sequences] == [NEW] * len(rows)
    if name not in ENCODER_DECODERS:  # there the source's keys and values are float32
        assert 4 * found.timing.bytes == whole.timing.bytes > 0


def test_each_channel_has_the_scale_of_what_the_samples_need() -> None:
    """Keys as the kernel stores them, after their rotation: what the float32 model gives for the calibrating half."""
    model = compiled("llama")
    batches = [{name: rows[at : at + 8] for name, rows in samples("llama").items()} for at in (0, 16)]
    pasts = {i.name: np.zeros((8, i.dims[1], 0, i.dims[3]), np.float32) for i in model.inputs if "past" in i.name}
    places = {i.name: np.arange(24)[None].repeat(8, 0) for i in model.inputs if i.name == "position_ids"}
    found = [model.session.run(None, {**feeds, **pasts, **places}) for feeds in batches]
    names = [o.name for o in model.session.get_outputs()]
    graph = onnx.load(made("llama")[0] / "model.onnx").graph
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("_scale")}
    assert set(scales) == {f"{name}_scale" for name in model.manifest["cache"]["present"]}
    for name, scale in scales.items():
        kept = np.concatenate([run[names.index(name.removesuffix("_scale"))] for run in found])
        np.testing.assert_allclose(scale, np.abs(kept).max(axis=(0, 2), keepdims=True) / 127, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_and_single_tokens_store_the_same(name: str) -> None:
    """Codes of the first layer, whose keys and values no attention comes before."""
    (text,), stored = rows_of((4,)), []
    for first in (1, 2, 4):
        decoder: Decoder = fresh(name).generation._generator._decoder
        decoder.start([text[:first]])
        for token in text[first:]:
            decoder.step(np.array([token]))
        stored.append([buffer[:, :, :4].astype(int) for buffer in decoder._cache._buffers[:2]])
    for found in stored[1:]:
        for ours, kernels in zip(found, stored[0], strict=True):
            assert np.abs(ours - kernels).max() <= 1 and np.abs(kernels).max() > 20


@pytest.mark.parametrize("name", NAMES)
def test_padding_on_either_side_changes_nothing(name: str) -> None:
    rows, model = rows_of(LENGTHS), fresh(name)
    alone = [model.generate([row], max_new_tokens=NEW).sequences[0] for row in rows]
    for side in ("left", "right"):
        ids, mask = padded(rows, side)
        assert list(model.generate(ids, attention_mask=mask, max_new_tokens=NEW).sequences) == alone


@pytest.mark.parametrize("name", NAMES)
def test_the_buffers_grow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(LENGTHS)
    expected = fresh(name).generate(rows, max_new_tokens=2 * NEW, eos_token_id=[])
    monkeypatch.setattr(buffers, "STEP", 4)
    found = fresh(name).generate(rows, max_new_tokens=2 * NEW, eos_token_id=[])
    assert found.sequences == expected.sequences and found.timing.bytes < expected.timing.bytes


@pytest.mark.parametrize("name", NAMES)
def test_beams_take_their_keys_and_values_along(name: str) -> None:
    """The score of each is that of its own text."""
    rows, model = rows_of(LENGTHS[:2]), fresh(name)
    found = model.generate(rows, num_beams=3, num_return_sequences=2, max_new_tokens=NEW, eos_token_id=[])
    assert found.scores is not None
    for i, (tokens, score) in enumerate(zip(found.sequences, found.scores, strict=True)):
        assert score == pytest.approx(log_probability(model, rows[i // 2], tokens) / len(tokens), abs=1e-4)


def log_probability(model: LoadedModel, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    decoder: Decoder = model.generation._generator._decoder
    decoder.picks = False
    logits, total = decoder.start([prompt]), 0.0
    for token in tokens:
        row = logits[0].astype(np.float64)
        total += float(row[token] - row.max() - np.log(np.exp(row - row.max()).sum()))
        logits = decoder.step(np.array([token]))
    return total


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_start_is_not_read_again(name: str) -> None:
    (text,) = rows_of((14,))
    model = fresh(name)
    model.generate([text[:10]], max_new_tokens=NEW)
    found = model.generate([text], max_new_tokens=NEW)
    assert found.sequences == fresh(name).generate([text], max_new_tokens=NEW).sequences


@pytest.mark.slow
def test_a_model_that_is_split_has_one_format(tmp_path: Path) -> None:
    folder = tmp_path / "fast"
    options: dict[str, Any] = {"calibrate": samples("llama"), "tuned": False, "cache_precision": "int8"}
    report = optimize_split(source("llama"), folder, precision="int4", **options)
    assert report.parity is not None and report.parity.fine
    decode, prefill = (scales(folder / part / "model.onnx") for part in ("decode", "prefill"))
    assert len(decode) == 4 and decode == prefill
    found = onnxsmith.load(folder, threads=1).generate(rows_of(LENGTHS), max_new_tokens=NEW, eos_token_id=[])
    whole = compiled("llama").generate(rows_of(LENGTHS), max_new_tokens=NEW, eos_token_id=[])
    assert 4 * found.timing.bytes == whole.timing.bytes


def scales(path: Path) -> dict[str, bytes]:
    taken = {f"{name}_scale" for name in compiled("llama").manifest["cache"]["present"]}
    found = {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in onnx.load(path).graph.initializer}
    return {name: scale for name, scale in found.items() if name in taken}


def test_a_budget_judges_it() -> None:
    """Whoever verifies is told how near it stays, not that it is the same."""
    found = onnxsmith.verify(made("llama")[0], against=source("llama"), inputs=samples("llama"))
    assert found.fine and found.budget is not None and found.closeness and not found.whole
    strict = onnxsmith.verify(
        made("llama")[0], against=source("llama"), inputs=samples("llama"), budget="cosine=0.9999999"
    )
    assert not strict.fine


def test_from_the_command_line(invoke: Invoke, tmp_path: Path) -> None:
    texts, fast = tmp_path / "texts.txt", tmp_path / "fast"
    texts.write_text("\n".join(f"a line of text, the number {i}" for i in range(10, 26)))
    asked = ("optimize", source("gpt2"), "-o", fast, "--cache", "--cache-precision", "int8", "--verify", "off")
    refused = invoke(*asked)
    assert refused.code == 2 and "add calibrate" in refused.err and not fast.exists()
    assert invoke(*asked, "--calibrate", texts).code == 0
    assert invoke("run", fast, "--prompt", "a line", "--max-new-tokens", 3).code == 0
    assert open_artifact(fast).manifest["cache"]["dtype"] == "int8"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cache_precision": "int4"}, "choose one of fp32, int8"),
    ({"cache": False}, "add cache"),
    ({"target": "cuda"}, "choose cpu"),
    ({"calibrate": None}, "only texts like yours .* add calibrate"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[next(iter(changed)) for changed, _ in WRONG])
def test_what_it_needs_is_told(changed: dict[str, Any], message: str) -> None:
    options = {"cache": True, "cache_precision": "int8", "calibrate": samples("llama"), **changed}
    with pytest.raises(BadUsage, match=message):
        onnxsmith.optimize(source("llama"), None, **options)


def test_a_model_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": True, "cache_precision": "int8", "calibrate": {"x": np.ones((4, 4), "f4")}}
    with pytest.raises(BadInput, match="no cache in int8: .*; leave cache_precision out"):
        onnxsmith.optimize(write_mlp(tmp_path / "mlp.onnx"), None, **options)


def test_a_cache_that_is_copied_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "HEAD_MULTIPLE", 1000)
    options: dict[str, Any] = {"cache": True, "cache_precision": "int8", "calibrate": samples("llama")}
    with pytest.raises(BadInput, match="no cache in int8: keys and values are copied: heads of .* features.*; leave"):
        onnxsmith.optimize(source("llama"), None, **options)
