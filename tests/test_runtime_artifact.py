"""Opening artifacts and reading what is recorded with a model, before any session exists."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from onnxsmith.errors import BadInput
from onnxsmith.runtime.artifact import open_artifact
from onnxsmith.runtime.metadata import read_metadata
from onnxsmith.runtime.options import encode_config, recorded_config
from tests.embedder import embedder_model, write_embedder
from tests.tiny import write_mlp

OPTION = {"optimization.disable_specified_optimizers": "SkipLayerNormFusion"}


def test_a_folder_and_its_model_file_open_alike(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "a")
    artifact = open_artifact(folder)
    assert artifact == open_artifact(folder / "model.onnx")
    assert artifact.manifest["task"] == "embed"
    assert artifact.sidecar("tokenizer") == folder / "tokenizer.json"
    assert artifact.sidecar("vocabulary") is None


def test_another_file_in_an_artifact_folder_has_no_manifest(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "a")
    artifact = open_artifact(write_mlp(folder / "other.onnx"))
    assert (artifact.manifest, artifact.folder) == ({}, None)


def test_missing_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        open_artifact(tmp_path / "nothing")
    with pytest.raises(BadInput, match="no onnxsmith.json"):
        open_artifact(tmp_path)
    (tmp_path / "onnxsmith.json").write_text('{"format": 1}')
    with pytest.raises(BadInput, match="no model.onnx"):
        open_artifact(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[1]", "expected a JSON object, found list"),
        ("{}", "expected format 1, found None"),
        ('{"format": 2}', "expected format 1, found 2"),
        ('{"format": 1, "bounds": [3]}', "'bounds' must be a JSON dict"),
        ('{"format": 1, "vocab_size": "3"}', "'vocab_size' must be a whole number"),
        ('{"format": 1, "special_tokens": {"pad": 0.5}}', "'pad' must be a whole number"),
        ('{"format": 1, "special_tokens": {"bos": -1}}', "'bos' must be a whole number"),
    ],
)
def test_broken_manifests_are_refused(tmp_path: Path, text: str, message: str) -> None:
    folder = write_embedder(tmp_path / "a")
    (folder / "onnxsmith.json").write_text(text)
    with pytest.raises(BadInput, match=message) as refused:
        open_artifact(folder)
    assert "\n" not in str(refused.value)


def test_sidecars_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    with pytest.raises(BadInput, match="leaves the artifact's folder"):
        open_artifact(write_embedder(tmp_path / "a", tokenizer="../secret.json")).sidecar("tokenizer")
    linked = write_embedder(tmp_path / "b", tokenizer="link.json")
    (linked / "link.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadInput, match="leaves the artifact's folder"):
        open_artifact(linked).sidecar("tokenizer")
    with pytest.raises(BadInput, match=r"the tokenizer that onnxsmith\.json names is missing"):
        open_artifact(write_embedder(tmp_path / "c", tokenizer="absent.json")).sidecar("tokenizer")


def test_sidecars_by_file_name(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "a", chat_template="t.jinja")
    (folder / "t.jinja").write_text("ü", encoding="utf-8")
    expected = {"tokenizer.json": (folder / "tokenizer.json").read_bytes(), "t.jinja": "ü".encode()}
    assert open_artifact(folder).sidecars() == expected


def test_metadata_is_read_without_the_graph(tmp_path: Path) -> None:
    model = embedder_model()
    onnx.helper.set_model_props(model, {"ort_config": "{}", "Größe": "3" * 300, "empty": ""})
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_metadata(path) == {"ort_config": "{}", "Größe": "3" * 300, "empty": ""}


def test_metadata_of_anything_else_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    whole = embedder_model().SerializeToString()
    for content in (
        b"",
        b"hello world\n" * 9,
        b"\xff" * 40,
        whole[:-1],
        whole[: len(whole) // 2],
        b"\x72\x02\x0a",
    ):
        path.write_bytes(content)
        assert read_metadata(path) == {}


def test_options_travel_in_the_manifest_and_in_the_metadata(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "a", session={"config": OPTION})
    assert recorded_config(open_artifact(folder)) == OPTION
    model = embedder_model()
    onnx.helper.set_model_props(model, {"ort_config": encode_config(OPTION)})
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert recorded_config(open_artifact(path)) == OPTION
    assert recorded_config(open_artifact(write_mlp(tmp_path / "plain.onnx"))) == {}


def test_options_that_name_files_are_refused(tmp_path: Path) -> None:
    config = {"session.model_external_initializers_file_folder_path": "/etc"}
    folder = write_embedder(tmp_path / "a", session={"config": config})
    with pytest.raises(BadInput, match="is not one that onnxsmith sets"):
        recorded_config(open_artifact(folder))


@pytest.mark.parametrize("text", ["{", "[]", '{"session_options": 3}'])
def test_malformed_options_are_refused(tmp_path: Path, text: str) -> None:
    model = embedder_model()
    onnx.helper.set_model_props(model, {"ort_config": text})
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadInput, match="write"):
        recorded_config(open_artifact(path))


def test_onnx_runtimes_own_options_are_left_to_the_caller(tmp_path: Path) -> None:
    model = embedder_model()
    text = json.dumps({"session_options": {"intra_op_num_threads": 7, **OPTION}})
    onnx.helper.set_model_props(model, {"ort_config": text})
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert recorded_config(open_artifact(path)) == OPTION
