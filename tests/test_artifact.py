"""Writing artifacts: what is read back, what is refused, and that no failure or kill leaves a broken output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxsmith.compiler import artifact
from onnxsmith.compiler.artifact import check_writable, write_artifact
from onnxsmith.compiler.load import load_model
from onnxsmith.errors import BadInput
from tests.command import snapshot
from tests.faults import Fault
from tests.tiny import write_mlp

MANIFEST = {"format": 1, "tokenizer": "tokenizer.json", "task": "größe"}
SIDECARS = {"tokenizer.json": b"{}"}


def model(seed: int = 0, **arrays: Any) -> ir.Model:
    """A sum of weights: by default a large, a middling and a tiny one, 4 MB in all, that follow the seed."""
    rng = np.random.default_rng(seed)
    arrays = arrays or {
        "large": rng.random((1024, 1024), np.float32),
        "middling": rng.random(300, np.float32),
        "tiny": np.float32(seed),
    }
    values = [ir.Value(name=name, const_value=ir.tensor(a, name=name)) for name, a in arrays.items()]
    nodes = [ir.node("Identity", [v], name=f"copy_{v.name}") for v in values]
    outputs = [node.outputs[0] for node in nodes]
    for node, v in zip(nodes, values, strict=True):
        assert v.const_value is not None
        v.shape, v.type = ir.Shape(v.const_value.shape.numpy()), ir.TensorType(v.const_value.dtype)
        node.outputs[0].name = f"out_{v.name}"
        node.outputs[0].shape, node.outputs[0].type = v.shape, v.type
    graph = ir.Graph([], outputs, nodes=nodes, initializers=values, opset_imports={"": 18}, name="sum")
    return ir.Model(graph, ir_version=10)


def weights(path: Path) -> dict[str, np.ndarray]:
    initializers = load_model(path).graph.initializers
    return {name: v.const_value.numpy() for name, v in initializers.items() if v.const_value is not None}


class TestRoundTrip:
    @pytest.mark.parametrize("name", ["folder", "m.onnx"])
    def test_weights_bit_for_bit(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifact, "_INLINE_LIMIT", 1_000_000)
        rng = np.random.default_rng(0)
        bits = rng.integers(0, 2**32, (600, 512), np.uint32)
        arrays: dict[str, Any] = {
            "float32": bits.view(np.float32),  # NaNs with payloads among them
            "transposed": bits.view(np.float32).T,
            "float64": rng.random((40, 40)),
            "float16": rng.random(2000).astype(np.float16),
            "bfloat16": rng.random(2000).astype(ml_dtypes.bfloat16),
            "int8": rng.integers(-128, 128, 5000, np.int8),
            "int4": rng.integers(-8, 8, 5001).astype(ml_dtypes.int4),
            "bool": rng.random(3000) > 0.5,
            "empty": np.zeros((0, 3), np.float32),
            "scalar": np.float32(1.5),
        }
        write_artifact(tmp_path / name, model(**arrays), MANIFEST)
        found = weights(tmp_path / name)
        assert found.keys() == arrays.keys()
        for key, array in arrays.items():
            assert found[key].shape == array.shape and found[key].dtype == array.dtype, key
            assert found[key].tobytes() == np.ascontiguousarray(array).tobytes(), key

    def test_strings_stay_in_the_model(self, tmp_path: Path) -> None:
        words = ["ü" * 700, "b"] * 9
        big = np.zeros((600, 600), np.float32)
        write_artifact(tmp_path / "m", model(words=words, big=big), MANIFEST)
        assert list(weights(tmp_path / "m")["words"]) == [word.encode() for word in words]

    def test_onnx_runtime_reads_it(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "m", model(3), MANIFEST)
        session = ort.InferenceSession(tmp_path / "m" / "model.onnx", providers=["CPUExecutionProvider"])
        large, *_, tiny = session.run(None, {})
        assert np.array_equal(large, weights(tmp_path / "m")["large"]) and tiny == 3

    def test_the_given_model_keeps_its_weights(self, tmp_path: Path) -> None:
        given = model()
        write_artifact(tmp_path / "m", given, MANIFEST)
        tensors = [v.const_value for v in given.graph.initializers.values()]
        assert not any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)

    @pytest.mark.parametrize("name", ["folder", "m.onnx"])
    def test_weights_of_branches(self, tmp_path: Path, name: str) -> None:
        """External initializers of a subgraph move along, in place of pointing back into the source's folder."""
        (tmp_path / "source").mkdir()
        source = write_branches(tmp_path / "source" / "m.onnx", np.arange(600, dtype=np.float32))
        write_artifact(tmp_path / name, load_model(source), MANIFEST)
        shutil.rmtree(tmp_path / "source")
        path = tmp_path / name if name.endswith("onnx") else tmp_path / name / "model.onnx"
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for flag, expected in ((True, np.arange(600)), (False, -np.arange(600))):
            assert np.array_equal(session.run(None, {"flag": np.array(flag)})[0], expected)

    def test_manifest_and_sidecars(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "m", model(), MANIFEST, SIDECARS)
        assert json.loads((tmp_path / "m" / "onnxsmith.json").read_text(encoding="utf-8")) == MANIFEST
        assert (tmp_path / "m" / "tokenizer.json").read_text() == "{}"


def write_branches(path: Path, array: np.ndarray) -> Path:
    """An If whose branches give an external weight and its negative."""
    weight = onnx.numpy_helper.from_array(array, "w")
    onnx.external_data_helper.set_external_data(weight, "w.bin", offset=0, length=array.nbytes)
    weight.ClearField("raw_data")
    (path.parent / "w.bin").write_bytes(array.tobytes())
    branches = {
        f"{name}_branch": onnx.helper.make_graph(
            [onnx.helper.make_node(op, ["w"], [name])],
            name,
            [],
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)],
            [weight],
        )
        for name, op in (("then", "Identity"), ("else", "Neg"))
    }
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["flag"], ["y"], **branches)],
        "choice",
        [onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, array.shape)],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())
    return path


class TestLayout:
    def places(self, path: Path) -> dict[str, dict[str, str]]:
        proto = onnx.load(path, load_external_data=False)
        return {t.name: {e.key: e.value for e in t.external_data} for t in proto.graph.initializer}

    def test_large_weights_go_to_one_aligned_file(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "m", model(), MANIFEST)
        places = self.places(tmp_path / "m" / "model.onnx")
        assert {places[name]["location"] for name in ("large", "middling")} == {"model.onnx.data"}
        assert int(places["large"]["offset"]) % 4096 == 0
        assert int(places["middling"]["offset"]) % 64 == 0
        assert places["tiny"] == {}
        assert (tmp_path / "m" / "model.onnx").stat().st_size < 10_000

    def test_small_models_are_one_file(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "m", model(w=np.zeros(1000, np.float32)), MANIFEST)
        assert not (tmp_path / "m" / "model.onnx.data").exists()

    def test_a_plain_file_stands_alone_up_to_the_limit(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "m.onnx", model(), MANIFEST)
        assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]

    def test_a_plain_file_over_the_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifact, "_INLINE_LIMIT", 1_000_000)
        write_artifact(tmp_path / "m.onnx", model(), MANIFEST)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
        assert self.places(tmp_path / "m.onnx")["large"]["location"] == "m.onnx.data"


class TestRefusal:
    def refused(self, target: Path, mention: str, given: ir.Model | None = None) -> None:
        root = next(parent for parent in target.parents if parent.is_dir())
        before = snapshot(root)
        with pytest.raises(BadInput, match=mention) as error:
            write_artifact(target, given or model(), MANIFEST)
        assert "\n" not in str(error.value)
        assert snapshot(root) == before

    def test_a_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        self.refused(tmp_path / "file" / "deep" / "m", "file is not a writable folder")

    def test_a_parent_without_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        self.refused(tmp_path / "a" / "b", "not a writable folder")

    def test_a_folder_for_a_file_and_the_reverse(self, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").mkdir()
        self.refused(tmp_path / "m.onnx", "is a folder")
        (tmp_path / "m").touch()
        self.refused(tmp_path / "m", "is a file")

    def test_a_folder_of_someone_else(self, tmp_path: Path) -> None:
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "thesis.tex").touch()
        self.refused(tmp_path / "m", r"thesis\.tex")

    def test_a_strangers_file_in_our_folder(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "m", model(), MANIFEST, SIDECARS)
        check_writable(tmp_path / "m")
        (tmp_path / "m" / "notes.txt").touch()
        self.refused(tmp_path / "m", r"notes\.txt")

    def test_an_empty_folder_is_welcome(self, tmp_path: Path) -> None:
        (tmp_path / "m").mkdir()
        write_artifact(tmp_path / "m", model(), MANIFEST)
        assert (tmp_path / "m" / "model.onnx").is_file()

    def test_over_its_own_weights(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "m", model(), MANIFEST)
        self.refused(tmp_path / "m", "weights that are being read", load_model(tmp_path / "m"))
        (tmp_path / "link").symlink_to("m")
        self.refused(tmp_path / "link", "weights that are being read", load_model(tmp_path / "m"))

    def test_over_its_own_file(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "m.onnx", model(), MANIFEST)
        self.refused(tmp_path / "m.onnx", "weights that are being read", load_model(tmp_path / "m.onnx"))

    def test_over_the_data_of_another(self, tmp_path: Path) -> None:
        write_mlp(tmp_path / "source.onnx", location="m.onnx.data")
        (tmp_path / "m.onnx.data").write_bytes(bytes(64))
        self.refused(tmp_path / "m.onnx", "weights that are being read", load_model(tmp_path / "source.onnx"))


KINDS = ("folder", "m.onnx", "split.onnx")


class TestFailure:
    """Each kind of output, once where there is none yet and once over an older one."""

    @pytest.fixture(params=KINDS)
    def target(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        limit = 1_000_000 if request.param == "split.onnx" else 100_000_000
        monkeypatch.setattr(artifact, "_INLINE_LIMIT", limit)
        return tmp_path / "out" / request.param

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
    def test_of_any_step_leaves_the_old_or_the_new(self, target: Path, error: BaseException) -> None:
        write(target, 1)
        count = steps(target)
        old = snapshot(target.parent)
        for at in range(1, count + 1):
            with pytest.raises((BadInput, KeyboardInterrupt)), pytest.MonkeyPatch.context() as patch:
                Fault(at, raiser(error)).install(patch)
                write(target, 2)
            if snapshot(target.parent) != old:
                assert at == count  # only the last sync comes after the new output is in place
                assert weights(target)["tiny"] == 2
        assert [p.name for p in target.parent.iterdir() if p.name.startswith(".")] == []

    def test_of_any_step_leaves_nothing_where_nothing_was(self, target: Path) -> None:
        count = steps(target)
        for at in range(1, count):
            shutil.rmtree(target.parent, ignore_errors=True)
            with pytest.raises(BadInput, match="No space left"), pytest.MonkeyPatch.context() as patch:
                Fault(at, raiser(OSError(28, "No space left on device"))).install(patch)
                write(target, 2)
            assert not target.exists()
            assert not any(target.parent.glob(".onnxsmith-*"))

    def test_that_lasts_never_costs_the_old_output(self, target: Path) -> None:
        """The disk fails for good, so that the old output cannot be put back: it is kept where it was moved to."""
        write(target, 1)
        count = steps(target)
        old = snapshot(target.parent)
        for at in range(1, count):
            with pytest.raises(BadInput), pytest.MonkeyPatch.context() as patch:
                Fault(at, raiser(OSError(5, "Input/output error")), lasting=True).install(patch)
                write(target, 2)
            put_back(target)
            assert old.items() <= snapshot(target.parent).items()
            shutil.rmtree(target.parent)
            write(target, 1)


def write(target: Path, seed: int) -> None:
    write_artifact(target, model(seed), MANIFEST, SIDECARS)


def steps(target: Path) -> int:
    """How many steps a write takes here and now; the output is there afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(0, lambda: None)
        fault.install(patch)
        write(target, 1)
    return fault.steps


def put_back(target: Path) -> None:
    """What a user can do who finds an output gone: it lies in the hidden folder that was left behind."""
    for path in target.parent.glob(".onnxsmith-*.tmp/old/*"):
        os.replace(path, target.parent / path.name)


def raiser(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


# Its one argument is a folder; a child is forked for every step and killed before that step.
KILLER = """
import os, signal, sys
from pathlib import Path
import pytest
from onnxsmith.compiler import artifact
from tests.faults import Fault
from tests.test_artifact import steps, write

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

artifact._INLINE_LIMIT = 1_000_000
root = Path(sys.argv[1])
for kind in ("folder", "split.onnx"):
    write(root / kind / "0" / kind, 1)
    count = steps(root / kind / "0" / kind)
    for at in range(1, count + 1):
        target = root / kind / str(at) / kind
        write(target, 1)
        if (child := os.fork()) == 0:
            Fault(at, kill).install(pytest.MonkeyPatch())
            write(target, 2)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_any_step_the_output_is_old_or_new_or_absent(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], cwd=root, check=True, timeout=120)
    ends = {target: end(target) for target in killed(tmp_path)}
    assert {"old", "new", "absent"} >= set(ends.values()) >= {"old", "new"}
    for target in (target for target, found in ends.items() if found == "absent"):
        put_back(target)
        assert end(target) == "old"


def killed(folder: Path) -> Iterator[Path]:
    for kind in ("folder", "split.onnx"):
        yield from (path / kind for path in (folder / kind).iterdir() if path.name != "0")


def end(target: Path) -> str:
    """Which output stands at the target; a broken one fails to load, or mixes the weights of two seeds."""
    if not target.exists():
        return "absent"
    found = weights(target)
    seed = int(found["tiny"])
    expected = model(seed).graph.initializers["large"].const_value
    assert expected is not None and np.array_equal(found["large"], expected.numpy())
    return {1: "old", 2: "new"}[seed]
