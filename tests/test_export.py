"""Export: what comes out computes what PyTorch does at every size and says what it is; bad factories."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from onnxsmith.compiler.export import export, to_onnx
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.optimize import optimize
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.models.checkpoint import Checkpoint, load_checkpoint
from onnxsmith.models.task import ExportTask, TensorSpec
from onnxsmith.runtime.model import load
from tests.checkpoints import MEAN, write_checkpoint
from tests.tiny import CONFIG


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("export") / "bert", pooling=MEAN)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    return folder


@pytest.fixture(scope="module")
def artifact(checkpoint: Path) -> Path:
    """One export for all the tests that look at it."""
    return export("bert", checkpoint.with_name("artifact"), checkpoint=checkpoint)


class TestArtifact:
    @pytest.mark.parametrize("batch, sequence", [(1, 1), (1, 9), (2, 1), (3, 7), (5, 2), (2, 64)])
    def test_outputs_are_those_of_pytorch(self, checkpoint: Path, artifact: Path, batch: int, sequence: int) -> None:
        rng = np.random.default_rng(batch)
        ids = rng.integers(0, CONFIG["vocab_size"], (batch, sequence))
        mask = np.ones_like(ids)
        mask[0, : sequence // 2] = 0
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": rng.integers(0, 2, ids.shape)}
        with torch.no_grad():
            expected = load_checkpoint(checkpoint).module(*map(torch.from_numpy, feeds.values()))
        session = ort.InferenceSession(artifact / "model.onnx", providers=["CPUExecutionProvider"])
        for found, wanted in zip(session.run(None, feeds), expected, strict=True):
            assert found.shape == wanted.shape
            error = np.sqrt(np.mean((found - wanted.numpy()) ** 2) / np.mean(wanted.numpy() ** 2))
            assert error < 1e-6

    def test_dimensions_are_named(self, artifact: Path) -> None:
        graph = load_model(artifact).graph
        assert {v.name: [str(d) for d in v.shape] for v in graph.inputs if v.shape is not None} == {
            name: ["batch", "sequence"] for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        assert {v.name: [str(d) for d in v.shape] for v in graph.outputs if v.shape is not None} == {
            "last_hidden_state": ["batch", "sequence", "32"],
            "sentence_embedding": ["batch", "32"],
        }

    def test_nodes_know_their_module(self, artifact: Path) -> None:
        scopes = {
            str(node.metadata_props.get("pkg.torch.onnx.name_scopes"))
            for node in load_model(artifact).graph
            if node.op_type in ("LayerNormalization", "MatMul", "Gelu")
        }
        for path in (
            "encoder.embeddings.norm",
            "encoder.layers.0.attention",
            "encoder.layers.1.feed_forward",
        ):
            assert any(f"'{path}" in scope for scope in scopes), path

    def test_manifest(self, artifact: Path, checkpoint: Path) -> None:
        manifest = json.loads((artifact / "onnxsmith.json").read_text())
        source = manifest.pop("source")
        assert source["name"] == "bert" and len(source["sha256"]) == 64
        assert manifest.pop("versions").keys() == {"torch", "onnx", "onnxscript"}
        assert manifest.pop("onnxsmith")
        ids = {"dtype": "int64", "dims": ["batch", "sequence"]}
        assert manifest == {
            "format": 1,
            "task": "embed",
            "exporter": "dynamo",
            "opset": 18,
            "inputs": [{"name": n, **ids} for n in ("input_ids", "attention_mask", "token_type_ids")],
            "outputs": [
                {"name": "last_hidden_state", "dtype": "float32", "dims": ["batch", "sequence", 32]},
                {"name": "sentence_embedding", "dtype": "float32", "dims": ["batch", 32]},
            ],
            "bounds": {"sequence": 64},
            "tokenizer": "tokenizer.json",
            "chat_template": "chat_template.jinja",
            "special_tokens": {"pad": 0, "unk": 1, "cls": 2, "sep": 3},
            "padding_side": "right",
            "max_length": 64,
            "vocab_size": 128,
        }

    def test_the_text_side_comes_along(self, checkpoint: Path, artifact: Path, tmp_path: Path) -> None:
        optimize(artifact, tmp_path / "fast", verify="off")
        for name in ("tokenizer.json", "chat_template.jinja"):
            contents = (checkpoint / name).read_bytes()
            assert (artifact / name).read_bytes() == (tmp_path / "fast" / name).read_bytes() == contents
        before, after = load(artifact), load(tmp_path / "fast")
        assert after.special_tokens == before.special_tokens
        assert after.prompt([{"role": "user", "content": "w1"}]) == "w1"
        with pytest.raises(BadInput, match="expected token ids from 0 to 127, found 128"):
            ids = np.full((1, 1), 128)
            after.run({"input_ids": ids, "attention_mask": ids, "token_type_ids": ids})


FACTORIES = """
import sys
import torch
from torch import nn
from onnxsmith.models.task import ExportTask, TensorSpec

class Scale(nn.Module):
    export_task = ExportTask(
        "features",
        (TensorSpec("x", "float32", ("rows", 4)),),
        (TensorSpec("y", "float32", ("rows", 4)),),
        {"rows": 3},
    )
    def forward(self, x):
        print("a forward that talks")
        return x * 2

class Branches(Scale):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x

class Breaks(Scale):
    def forward(self, x):
        raise KeyError("no such part")

def talkative():
    print("a factory that talks")
    return Scale()

def pair():
    return nn.Linear(4, 4), Scale.export_task

def nonsense():
    return 7

def triple():
    return nn.Linear(4, 4), Scale.export_task, 1

def no_task():
    return nn.Linear(4, 4)

def fails():
    raise RuntimeError("weights not found\\nsecond line")

def bad_dtype():
    return nn.Linear(4, 4), ExportTask("x", (TensorSpec("x", "float31", ("rows", 4)),), ())

constant = 3
"""


class TestFactory:
    @pytest.fixture(autouse=True)
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module ``factories`` in the current folder, which is where users keep theirs."""
        (tmp_path / "factories.py").write_text(FACTORIES)
        (tmp_path / "broken.py").write_text("def f(:\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "factories", raising=False)

    @pytest.mark.parametrize("factory", ["Scale", "talkative", "pair"])
    def test_good(self, tmp_path: Path, factory: str, capfd: pytest.CaptureFixture[str]) -> None:
        path = list(sys.path)
        export(f"factories:{factory}", tmp_path / "m.onnx")
        assert sys.path == path
        assert capfd.readouterr().out == ""
        graph = load_model(tmp_path / "m.onnx").graph
        assert [str(v.shape) for v in graph.inputs] == ["[rows,4]"]

    @pytest.mark.parametrize(
        ("spec", "mention"),
        [
            ("absent:f", "No module named 'absent'"),
            ("factories:absent", "absent"),
            ("factories:", "factories:"),
            (":f", "':f'"),
            ("broken:f", "SyntaxError"),
            ("factories:constant", "not callable"),
            ("factories:nonsense", "must return (nn.Module, ExportTask)"),
            ("factories:triple", "must return (nn.Module, ExportTask)"),
            ("factories:no_task", "export_task"),
            ("factories:fails", "RuntimeError: weights not found"),
            ("factories:bad_dtype", "float31"),
            ("factories:Branches", "cannot export the model"),
            ("factories:Breaks", "no such part"),
        ],
    )
    def test_bad(self, tmp_path: Path, spec: str, mention: str, capfd: pytest.CaptureFixture[str]) -> None:
        path = list(sys.path)
        with pytest.raises(BadInput) as error:
            export(spec, tmp_path / "out")
        assert mention in str(error.value)
        assert "\n" not in str(error.value)
        assert sys.path == path
        assert not (tmp_path / "out").exists()
        assert capfd.readouterr().out == ""


class TestSource:
    def refused(self, kind: type[Exception], mention: str, *args: Any, **options: Any) -> None:
        with pytest.raises(kind, match=mention):
            export(*args, **options)

    def test_unknown(self, tmp_path: Path) -> None:
        self.refused(BadInput, "no-such-model.*bert-base", "no-such-model", tmp_path / "out")

    def test_an_architecture_without_a_checkpoint(self, tmp_path: Path) -> None:
        self.refused(BadInput, "--checkpoint", "bert", tmp_path / "out")

    def test_a_checkpoint_without_an_architecture(self, tmp_path: Path, checkpoint: Path) -> None:
        self.refused(BadUsage, "bert-tiny", "bert-tiny", tmp_path / "out", checkpoint=checkpoint)

    def test_an_opset_of_the_past(self, tmp_path: Path) -> None:
        self.refused(BadUsage, "opset 17", "bert-tiny", tmp_path / "out", opset=17)

    def test_an_opset_of_the_future(self, tmp_path: Path) -> None:
        self.refused(BadInput, "opset 99", "bert-tiny", tmp_path / "out", opset=99)
        assert not (tmp_path / "out").exists()

    def test_an_unwritable_output_is_noticed_before_the_model_is_looked_for(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        self.refused(BadInput, "not a writable folder", "no-such-model", tmp_path / "file" / "out")

    @pytest.mark.parametrize("missing", ["torch", "safetensors"])
    def test_missing_packages(self, tmp_path: Path, missing: str) -> None:
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from onnxsmith.compiler.export import export\nfrom onnxsmith.errors import BadInput\n"
            f"try: export('bert-tiny', {str(tmp_path / 'out')!r})\nexcept BadInput as e: print(e)"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.splitlines() == [
            f"export needs {missing}, which is not installed: pip install 'onnxsmith[torch]'"
        ]


class TestTask:
    class Shift(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.logical_not(x) if x.dtype == torch.bool else x + 1

    @pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "bool"])
    def test_types_and_bounds_below_the_examples(self, dtype: str) -> None:
        dims = ("batch", "sequence")
        task = ExportTask("x", (TensorSpec("x", dtype, dims),), (TensorSpec("y", dtype, dims),), {"sequence": 3})
        model = to_onnx(Checkpoint(self.Shift(), task, {}))
        assert str(model.graph.inputs[0].shape) == "[batch,sequence]"
