"""Every kind of bad input: one line that says what to do, exit code 3, nothing written, nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.command import Invoke, assert_refused, snapshot
from tests.tiny import bert_tensors, write_bert, write_mlp


def missing(folder: Path) -> Path:
    return folder / "model.onnx"


def truncated(folder: Path) -> Path:
    path = write_mlp(folder / "model.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    return path


def renamed_text(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_text("This is a letter to a friend, not a model.\n")
    return path


def empty(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.touch()
    return path


def missing_data(folder: Path) -> Path:
    return write_mlp(folder / "model.onnx", location="weights.bin")


def short_data(folder: Path) -> Path:
    (folder / "weights.bin").write_bytes(bytes(32))
    return write_mlp(folder / "model.onnx", location="weights.bin")


def data_outside(folder: Path) -> Path:
    (folder.parent / "secret.bin").write_bytes(bytes(64))
    return write_mlp(folder / "model.onnx", location="../secret.bin")


def absolute_data(folder: Path) -> Path:
    secret = folder.parent / "secret.bin"
    secret.write_bytes(bytes(64))
    return write_mlp(folder / "model.onnx", location=str(secret))


def linked_data(folder: Path) -> Path:
    (folder.parent / "secret.bin").write_bytes(bytes(64))
    (folder / "weights.bin").symlink_to("../secret.bin")
    return write_mlp(folder / "model.onnx", location="weights.bin")


def folder_without_model(folder: Path) -> Path:
    return folder


BROKEN = (
    missing,
    truncated,
    renamed_text,
    empty,
    missing_data,
    short_data,
    data_outside,
    absolute_data,
    linked_data,
    folder_without_model,
)


class TestBadModel:
    @pytest.fixture(params=BROKEN, ids=lambda make: make.__name__)
    def broken(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
        """A model that cannot be used; nothing may change around it."""
        folder = tmp_path / "model"
        folder.mkdir()
        path = request.param(folder)
        before = snapshot(tmp_path)
        yield path
        assert snapshot(tmp_path) == before

    def test_optimize(self, invoke: Invoke, broken: Path, tmp_path: Path) -> None:
        assert_refused(invoke("optimize", broken, "-o", tmp_path / "out"), str(broken.parent))
        assert not (tmp_path / "out").exists()

    def test_explain(self, invoke: Invoke, broken: Path) -> None:
        assert_refused(invoke("explain", broken), str(broken.parent))

    def test_run(self, invoke: Invoke, broken: Path, tmp_path: Path) -> None:
        assert_refused(invoke("run", broken, "--text", "hello", "--output", tmp_path / "y.npz"))

    def test_compare(self, invoke: Invoke, broken: Path) -> None:
        assert_refused(invoke("compare", broken, broken), str(broken.parent))


class TestUnwritableOutput:
    def test_optimize(self, invoke: Invoke, tmp_path: Path) -> None:
        model = write_mlp(tmp_path / "model.onnx")
        before = snapshot(tmp_path)
        assert_refused(invoke("optimize", model, "-o", model / "out"), "out")
        assert snapshot(tmp_path) == before

    def test_over_a_foreign_folder(self, invoke: Invoke, tmp_path: Path) -> None:
        model = write_mlp(tmp_path / "model.onnx")
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "thesis.txt").write_text("years of work")
        before = snapshot(tmp_path)
        assert_refused(invoke("optimize", model, "-o", tmp_path / "precious"), "precious")
        assert snapshot(tmp_path) == before

    def test_over_the_input(self, invoke: Invoke, tmp_path: Path) -> None:
        model = write_mlp(tmp_path / "model.onnx")
        before = snapshot(tmp_path)
        assert_refused(invoke("optimize", model, "-o", model), "model.onnx")
        assert snapshot(tmp_path) == before

    def test_run(self, invoke: Invoke, tmp_path: Path) -> None:
        model = write_mlp(tmp_path / "model.onnx")
        np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
        for output in (tmp_path / "no" / "y.npz", tmp_path, model / "y.npz"):
            assert_refused(invoke("run", model, "--input", tmp_path / "x.npz", "--output", output))


class TestBadCheckpoint:
    def refuse(self, invoke: Invoke, checkpoint: Path, *mentions: str) -> None:
        before = snapshot(checkpoint.parent)
        output = checkpoint.parent / "out"
        assert_refused(invoke("export", "bert", "--checkpoint", checkpoint, "-o", output), *mentions)
        assert snapshot(checkpoint.parent) == before
        assert not output.exists()

    def test_missing(self, invoke: Invoke, tmp_path: Path) -> None:
        self.refuse(invoke, tmp_path / "nowhere", "nowhere")

    def test_another_architecture(self, invoke: Invoke, tmp_path: Path) -> None:
        self.refuse(invoke, write_bert(tmp_path / "gpt", config={"model_type": "gpt2"}), "gpt2", "bert")

    def test_missing_tensor(self, invoke: Invoke, tmp_path: Path) -> None:
        tensors = bert_tensors()
        del tensors["encoder.layer.1.output.dense.weight"]
        self.refuse(invoke, write_bert(tmp_path / "bert", tensors=tensors), "layers.1.feed_forward.down.weight")

    def test_extra_tensor(self, invoke: Invoke, tmp_path: Path) -> None:
        tensors = bert_tensors() | {"encoder.layer.2.spare": np.ones(3, np.float32)}
        self.refuse(invoke, write_bert(tmp_path / "bert", tensors=tensors), "encoder.layer.2.spare")

    def test_wrong_shape(self, invoke: Invoke, tmp_path: Path) -> None:
        tensors = bert_tensors() | {"pooler.dense.bias": np.ones(3, np.float32)}
        tensors["embeddings.LayerNorm.bias"] = np.ones(3, np.float32)
        self.refuse(invoke, write_bert(tmp_path / "bert", tensors=tensors), "embeddings.LayerNorm.bias")

    def test_unknown_source(self, invoke: Invoke, tmp_path: Path) -> None:
        assert_refused(invoke("export", "no-such-model", "-o", tmp_path / "out"), "no-such-model")
        assert not (tmp_path / "out").exists()
