"""A decoder that is split: prompts are read by one model, tokens made by another, over one cache."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnxsmith
from onnxsmith.compiler.split import optimize_split
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.model import LoadedModel
from tests.generation import compiled, folders, rows_of
from tests.tiny import write_mlp

EXACT: dict[str, Any] = {"precision": "fp32", "verify": "off", "tuned": False}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In int4 but for its prompts."""
    folder = tmp_path_factory.mktemp("split") / "fast"
    whole = compiled("llama").artifact.folder
    assert whole is not None
    report = optimize_split(whole.with_name("llama-plain"), folder, precision="int4", tuned=False)
    assert report.parity is not None and report.parity.fine
    assert {c.output for c in report.parity.closeness} == {"logits", "logits of prefill"}
    return folder


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


def test_each_part_has_its_format(split: Path) -> None:
    assert sorted(path.name for path in split.iterdir()) == ["decode", "prefill"]
    assert "MatMulNBits" in operators(split / "decode" / "model.onnx")
    prefill = operators(split / "prefill" / "model.onnx")
    assert "MatMulIntegerToFloat" in prefill and "MatMulNBits" not in prefill


def test_prompts_go_through_prefill_alone(split: Path) -> None:
    """The first token is that of prefill, and with its cache the others are those of decode."""
    rows = rows_of((9, 5, 1, 7))
    for prompts in (rows, rows[:1]):
        found = onnxsmith.load(split, threads=1).generate(prompts, max_new_tokens=8, eos_token_id=[]).sequences
        first = onnxsmith.load(split / "prefill", threads=1).generate(prompts, max_new_tokens=1).sequences
        assert [row[:1] for row in found] == list(first)
        assert list(found) == swapped(split, prompts)


def swapped(split: Path, prompts: list[list[int]]) -> list[tuple[int, ...]]:
    """By hand: a decoder of one part, whose session is changed after the prompts."""
    model, decode = (onnxsmith.load(split / part, threads=1) for part in ("prefill", "decode"))
    decoder = model.generation._generator._decoder
    decoder.picks = True
    tokens = decoder.start(prompts)
    decoder._session, decoder._binding = decode.session, None
    rows = [[token] for token in tokens.tolist()]
    for _ in range(7):
        tokens = decoder.step(tokens)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.append(token)
    return [tuple(row) for row in rows]


def test_split_of_equal_parts_changes_nothing(tmp_path: Path) -> None:
    whole = compiled("llama")
    assert whole.artifact.folder is not None
    for part in ("decode", "prefill"):
        shutil.copytree(whole.artifact.folder, tmp_path / part)
    rows = rows_of((9, 5, 1, 7))
    settings: dict[str, Any] = {"max_new_tokens": 12}
    model: LoadedModel = onnxsmith.load(tmp_path, threads=1)
    assert model.prefill is not None
    assert model.generate(rows, **settings).sequences == whole.generate(rows, **settings).sequences
    beams = {"num_beams": 3, **settings}
    assert model.generate(rows, **beams).sequences == whole.generate(rows, **beams).sequences


def test_what_cannot_be_split(split: Path, tmp_path: Path) -> None:
    source = folders("llama")[1]
    with pytest.raises(BadUsage, match="add cache"):
        optimize_split(source, tmp_path / "a", cache=False, **EXACT)
    with pytest.raises(BadUsage, match="two models; give a folder"):
        optimize_split(source, tmp_path / "a.onnx", **EXACT)
    with pytest.raises(BadInput, match="gets no cache, so it has no steps"):
        optimize_split(write_mlp(tmp_path / "mlp.onnx"), tmp_path / "a", **EXACT)
    with pytest.raises(BadInput, match="holds the model to optimize"):
        optimize_split(split / "decode", split, **EXACT)
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.onnx"]


def test_parts_of_two_models_are_refused(split: Path, tmp_path: Path) -> None:
    shutil.copytree(split, tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed" / "prefill")
    folder = compiled("mistral").artifact.folder
    assert folder is not None
    shutil.copytree(folder, tmp_path / "mixed" / "prefill")
    with pytest.raises(BadInput, match="two kinds of caches"):
        onnxsmith.load(tmp_path / "mixed")
