"""Loading models that nobody vouches for: every broken one is refused by one line, and weights stay on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from onnxsmith.compiler.load import load_model
from onnxsmith.errors import BadInput
from tests.test_artifact import write_branches
from tests.tiny import write_mlp

WEIGHT = np.arange(16, dtype=np.float32).reshape(4, 4)


def refused(path: Path, *mentions: str) -> None:
    with pytest.raises(BadInput) as error:
        load_model(path)
    message = str(error.value)
    assert "\n" not in message
    for mention in (path.name, *mentions):
        assert mention in message


def changed(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """The file with its model changed; weights that lie outside stay there."""
    proto = onnx.load(path, load_external_data=False)
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def external(folder: Path, **entries: str) -> Path:
    """A model whose 64 bytes of weight are in w.bin, with its external data described by ``entries``."""
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())

    def describe(proto: onnx.ModelProto) -> None:
        del proto.graph.initializer[0].external_data[:]
        for key, value in ({"location": "w.bin"} | entries).items():
            proto.graph.initializer[0].external_data.add(key=key, value=value)

    return changed(write_mlp(folder / "m.onnx", location="w.bin"), describe)


def first_weight(path: Path) -> Any:
    tensor = load_model(path).graph.initializers["w"].const_value
    assert tensor is not None
    return tensor.numpy()


class TestFile:
    def test_missing(self, tmp_path: Path) -> None:
        refused(tmp_path / "m.onnx", "no such file")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").touch()
        refused(tmp_path / "m.onnx", "empty")

    def test_truncated_anywhere(self, tmp_path: Path) -> None:
        whole = write_mlp(tmp_path / "m.onnx").read_bytes()
        for size in range(1, len(whole)):
            (tmp_path / "m.onnx").write_bytes(whole[:size])
            refused(tmp_path / "m.onnx")

    def test_truncated_within_large_weights(self, tmp_path: Path) -> None:
        path = inline(tmp_path / "m.onnx", np.ones((100, 100), np.float32))
        whole = path.read_bytes()
        for size in range(1, len(whole), 977):
            path.write_bytes(whole[:size])
            refused(path)

    @pytest.mark.parametrize("text", ["hello", "This is a letter, not a model.\n" * 50, "{}", "\n", "\x08\x08"])
    def test_text(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "m.onnx").write_text(text)
        refused(tmp_path / "m.onnx")

    def test_safetensors(self, tmp_path: Path) -> None:
        save_file({"w": WEIGHT}, tmp_path / "m.onnx")
        refused(tmp_path / "m.onnx")

    def test_a_device(self) -> None:
        refused(Path(os.devnull), "not a regular file")

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_damaged(self, tmp_path: Path, data: st.DataObject) -> None:
        """Whatever bytes are wrong, the model loads or is refused: no other error."""
        path = inline(tmp_path / "m.onnx", np.ones((40, 40), np.float32))
        raw = bytearray(path.read_bytes())
        places = st.integers(0, len(raw) - 1)
        for at, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
            raw[at] = byte
        path.write_bytes(raw)
        try:
            load_model(path)
        except BadInput as e:
            assert "\n" not in str(e)


class TestGraph:
    def test_no_nodes(self, tmp_path: Path) -> None:
        path = write_mlp(tmp_path / "m.onnx")
        refused(changed(path, lambda proto: proto.graph.ClearField("node")), "operators")

    def test_no_opset(self, tmp_path: Path) -> None:
        path = write_mlp(tmp_path / "m.onnx")
        refused(changed(path, lambda proto: proto.ClearField("opset_import")), "opset_import")

    def test_an_opset_of_another_domain_alone(self, tmp_path: Path) -> None:
        def rename(proto: onnx.ModelProto) -> None:
            proto.opset_import[0].domain = "com.microsoft"

        refused(changed(write_mlp(tmp_path / "m.onnx"), rename), "opset_import")

    @pytest.mark.parametrize("kind", [0, 8, 99])
    def test_a_weight_of_no_numeric_type(self, tmp_path: Path, kind: int) -> None:
        def retype(proto: onnx.ModelProto) -> None:
            proto.graph.initializer[0].data_type = kind

        path = inline(tmp_path / "m.onnx", np.ones((40, 40), np.float32))
        refused(changed(path, retype), "malformed")

    def test_a_weight_that_does_not_fit_its_shape(self, tmp_path: Path) -> None:
        def reshape(proto: onnx.ModelProto) -> None:
            proto.graph.initializer[0].dims[0] = 41

        path = inline(tmp_path / "m.onnx", np.ones((40, 40), np.float32))
        refused(changed(path, reshape), "'w' has 6400 bytes")

    def test_a_sparse_attribute(self, tmp_path: Path) -> None:
        def sparse(proto: onnx.ModelProto) -> None:
            attribute = proto.graph.node[0].attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSOR)
            attribute.sparse_tensor.dims.append(3)

        refused(changed(write_mlp(tmp_path / "m.onnx"), sparse), "malformed")


def inline(path: Path, weight: np.ndarray) -> Path:
    """The product with a weight in the file, large enough to be mapped."""

    def replace(proto: onnx.ModelProto) -> None:
        proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))

    return changed(write_mlp(path), replace)


class TestExternalData:
    def test_it_is_found(self, tmp_path: Path) -> None:
        assert np.array_equal(first_weight(external(tmp_path)), WEIGHT)
        assert np.array_equal(first_weight(external(tmp_path, offset="0", length="64")), WEIGHT)

    def test_it_is_found_from_another_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "deep").mkdir()
        external(tmp_path)
        monkeypatch.chdir(tmp_path / "deep")
        assert np.array_equal(first_weight(Path("../m.onnx")), WEIGHT)

    def test_missing(self, tmp_path: Path) -> None:
        refused(external(tmp_path, location="gone.bin"), "gone.bin", "missing")

    @pytest.mark.parametrize("size", [0, 1, 63])
    def test_too_short(self, tmp_path: Path, size: int) -> None:
        path = external(tmp_path)
        (tmp_path / "w.bin").write_bytes(bytes(size))
        refused(path, f"{size} bytes", "'w' needs 64")

    @pytest.mark.parametrize("offset", ["1", "64", str(2**40)])
    def test_an_offset_behind_the_data(self, tmp_path: Path, offset: str) -> None:
        refused(external(tmp_path, offset=offset), "64 bytes", str(int(offset) + 64))

    @pytest.mark.parametrize(
        "entries",
        [
            {"offset": "-1"},
            {"offset": "first"},
            {"offset": ""},
            {"offset": "1.5"},
            {"offset": "9" * 5000},
            {"length": "-1"},
            {"length": "0"},
            {"length": "63"},
            {"length": "65"},
            {"length": str(2**70)},
            {"length": "all"},
        ],
        ids=lambda entries: str(entries)[:30],
    )
    def test_an_impossible_place(self, tmp_path: Path, entries: dict[str, str]) -> None:
        key, value = next(iter(entries.items()))
        refused(external(tmp_path, **entries), "'w'", f"{key}={value[:20]}")

    @pytest.mark.parametrize("dims", [(-4, -4), (-4, 4), (2**40, 2**40)])
    def test_an_impossible_shape(self, tmp_path: Path, dims: tuple[int, int]) -> None:
        def reshape(proto: onnx.ModelProto) -> None:
            proto.graph.initializer[0].dims[:] = dims

        refused(changed(external(tmp_path), reshape), "'w'")

    @pytest.mark.parametrize("location", ["../secret", "deep/../../secret", "{root}/secret", "link", "linked/secret"])
    def test_outside_the_folder(self, tmp_path: Path, location: str) -> None:
        folder = tmp_path / "model"
        (folder / "deep").mkdir(parents=True)
        (tmp_path / "secret").write_bytes(bytes(64))
        (folder / "link").symlink_to(tmp_path / "secret")
        (folder / "linked").symlink_to(tmp_path)
        refused(external(folder, location=location.format(root=tmp_path)), "outside the model's folder")

    @pytest.mark.parametrize("location", ["", ".", "deep", "w.bin/x", "w.bin\0", "loop"])
    def test_no_file_at_all(self, tmp_path: Path, location: str) -> None:
        (tmp_path / "deep").mkdir()
        (tmp_path / "loop").symlink_to("loop")
        refused(external(tmp_path, location=location), repr(location))

    @pytest.mark.parametrize("name", ["m.onnx", "w.bin"])
    def test_hard_links_are_fine(self, tmp_path: Path, name: str) -> None:
        path = external(tmp_path)
        os.link(tmp_path / name, tmp_path / "copy")
        assert np.array_equal(first_weight(path), WEIGHT)

    def test_a_cache_of_links_is_fine(self, tmp_path: Path) -> None:
        """The Hugging Face hub keeps files under their hash and links them into a folder per version."""
        (tmp_path / "blobs").mkdir()
        (tmp_path / "version").mkdir()
        external(tmp_path / "blobs")
        for name in ("m.onnx", "w.bin"):
            (tmp_path / "version" / name).symlink_to(f"../blobs/{name}")
        assert np.array_equal(first_weight(tmp_path / "version" / "m.onnx"), WEIGHT)

    def test_in_a_branch(self, tmp_path: Path) -> None:
        path = write_branches(tmp_path / "m.onnx", WEIGHT.reshape(-1))
        graphs = list(load_model(path).graph.subgraphs())
        tensors = [graph.initializers["w"].const_value for graph in graphs]
        assert len(tensors) == 2
        assert all(t is not None and np.array_equal(t.numpy(), WEIGHT.reshape(-1)) for t in tensors)
        (tmp_path / "w.bin").unlink()
        refused(path, "w.bin", "missing")

    @pytest.mark.parametrize("place", ["graph", "function"])
    def test_in_an_attribute(self, tmp_path: Path, place: str) -> None:
        path = constant(tmp_path, place)
        model = load_model(path)
        nodes = model.graph if place == "graph" else next(iter(model.functions.values()))
        (tmp_path / "w.bin").rename(tmp_path / "moved.bin")
        assert np.array_equal(next(iter(nodes)).attributes["value"].as_tensor().numpy(), WEIGHT)
        refused(path, "w.bin", "missing")


def constant(folder: Path, place: str) -> Path:
    """The product with its weight in a Constant's attribute, in the graph or in the body of a function."""
    path = external(folder)
    proto = onnx.load(path, load_external_data=False)
    node = onnx.helper.make_node("Constant", [], ["w"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(proto.graph.initializer[0])
    del proto.graph.initializer[:]
    opset = [onnx.helper.make_opsetid("", 18)]
    if place == "graph":
        proto.graph.node.insert(0, node)
    else:
        proto.functions.append(onnx.helper.make_function("ours", "F", [], ["w"], [node], opset))
        proto.graph.node.insert(0, onnx.helper.make_node("F", [], ["w"], domain="ours"))
        proto.opset_import.add(domain="ours", version=1)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["inline", "external"])
def test_weights_stay_on_disk(tmp_path: Path, kind: str) -> None:
    """Loading 64 MB of weights costs next to no memory: neither of our own nor mapped from the file."""
    weight = np.ones((4000, 4000), np.float32)
    path = inline(tmp_path / "m.onnx", weight)
    if kind == "external":
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin")
    small = write_mlp(tmp_path / "small.onnx")
    code = (
        "import re, sys; from pathlib import Path; from onnxsmith.compiler.load import load_model\n"
        "size = lambda: int(re.search(r'VmRSS:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "first = load_model(sys.argv[1]); before = size()\n"
        "second = load_model(sys.argv[2]); print((size() - before) / 1024)"
    )
    command = [sys.executable, "-c", code, str(small), str(path)]
    assert float(subprocess.run(command, capture_output=True, check=True).stdout) < 8
