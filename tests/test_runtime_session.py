"""Sessions: options arrive, and what cannot run is one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.session import open_session, session_options
from tests.tiny import write_mlp


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """64 bytes of weights beside, not inside, the model's folder."""
    (tmp_path / "model").mkdir()
    path = tmp_path / "outside"
    path.write_bytes(np.eye(4, dtype=np.float32).tobytes())
    return path


def test_options_are_set() -> None:
    options = session_options(3, optimize=False, config={"optimization.x": "1"})
    assert options.intra_op_num_threads == 3
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.get_session_config_entry("optimization.x") == "1"
    assert session_options().graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_only_the_provider_that_was_asked_for(tmp_path: Path) -> None:
    assert open_session(write_mlp(tmp_path / "m.onnx")).get_providers() == ["CPUExecutionProvider"]


def test_wrong_usage(tmp_path: Path) -> None:
    path = write_mlp(tmp_path / "m.onnx")
    with pytest.raises(BadUsage, match="unknown provider 'tpu'; expected one of cpu, cuda"):
        open_session(path, provider="tpu")  # type: ignore[arg-type]
    with pytest.raises(BadUsage, match="at least 1, found 0"):
        open_session(path, threads=0)


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 9, b"\x08\x0a\x3a\x7f", b"\xff" * 100])
def test_what_is_no_model(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="ONNX Runtime refuses this model on cpu") as refused:
        open_session(path)
    assert "\n" not in str(refused.value)
    assert "[ONNXRuntimeError]" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        open_session(tmp_path / "m.onnx")


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    session = open_session(write_mlp(tmp_path / "m.onnx", location="weights"))
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x)


@pytest.mark.parametrize("location", ["../outside", "sub/../../outside", "ABSOLUTE", "link", "*/_ORT_MEM_ADDR_/*"])
def test_external_data_outside_the_folder_is_refused(outside: Path, location: str) -> None:
    folder = outside.parent / "model"
    (folder / "link").symlink_to(outside)
    location = os.fspath(outside) if location == "ABSOLUTE" else location
    with pytest.raises(BadInput, match="ONNX Runtime refuses this model on cpu"):
        open_session(write_mlp(folder / "m.onnx", location=location))


def test_missing_and_short_external_data_are_refused(tmp_path: Path) -> None:
    path = write_mlp(tmp_path / "m.onnx", location="weights")
    with pytest.raises(BadInput, match="External data path does not exist"):
        open_session(path)
    (tmp_path / "weights").write_bytes(b"123")
    with pytest.raises(BadInput, match="out of bounds"):
        open_session(path)


def test_cuda_that_cannot_load_is_no_cpu_in_disguise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        print("Failed to load libcublas.so.13: no such file")

    monkeypatch.setattr(ort, "preload_dlls", fail)
    monkeypatch.setattr(ort, "InferenceSession", CpuOnly)
    with pytest.raises(BadInput, match=r"cuda does not work .*\(Failed to load libcublas\.so\.13: no such file\)"):
        open_session(write_mlp(tmp_path / "m.onnx"), provider="cuda")
    assert capfd.readouterr() == ("", "")


class CpuOnly:
    """A session that came back without the provider that it was asked for."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("available", "said"),
    [
        (["CPUExecutionProvider"], r"this onnxruntime has no CUDA provider: install onnxruntime-gpu\[cuda,cudnn\]"),
        (["CUDAExecutionProvider"], r"\S*nowhere\.so: cannot open shared object file"),
    ],
)
def test_the_reason_is_found_where_nothing_was_preloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: list[str], said: str
) -> None:
    monkeypatch.delattr(ort, "preload_dlls", raising=False)  # older versions have none
    monkeypatch.setattr(ort, "InferenceSession", CpuOnly)
    monkeypatch.setattr(ort, "get_available_providers", lambda: available)
    monkeypatch.setattr("onnxsmith.runtime.session._CUDA_LIBRARY", "nowhere.so")
    with pytest.raises(BadInput, match=said):
        open_session(write_mlp(tmp_path / "m.onnx"), provider="cuda")


@pytest.mark.gpu
def test_cuda_runs(tmp_path: Path) -> None:
    try:
        session = open_session(write_mlp(tmp_path / "m.onnx"), provider="cuda")
    except BadInput as error:
        pytest.skip(str(error))
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x)
