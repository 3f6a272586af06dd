"""``onnxsmith train``: from a recipe to a checkpoint that is exported, with a loss curve; and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from onnxsmith.models.recipes.translation import Translation  # noqa: E402
from onnxsmith.models.training import recipe_names  # noqa: E402
from tests.command import Invoke, assert_refused, snapshot  # noqa: E402

RECIPE = """
steps = 10
batch = 8
checkpoint_every = 4
[problem]
name = "translation"
pairs = 100
held_out = 8
[model]
model_type = "transformer"
d_model = 32
layers = 1
heads = 2
d_ff = 64
length = 32
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_the_list_has_every_recipe(invoke: Invoke) -> None:
    result = invoke("train", "--list")
    assert result.code == 0 and all(name in result.out for name in recipe_names())


def test_what_it_writes_is_exported(recipe: Path, tmp_path: Path, invoke: Invoke) -> None:
    result = invoke("train", recipe, "-o", tmp_path / "out", "--seed", 5)
    assert result.code == 0 and "tiny: exact match, %" in result.out and len(result.out.splitlines()) == 4
    assert (tmp_path / "out" / "loss.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(found["losses"]) == 10 and list(found["quality"]) == ["exact match, %"]
    options = ("--checkpoint", tmp_path / "out", "--exporter", "torchscript", "-o", tmp_path / "model")
    assert invoke("export", "transformer", *options).code == 0
    manifest = json.loads((tmp_path / "model" / "onnxsmith.json").read_text())
    assert manifest["task"] == "seq2seq" and manifest["generation"]["decoder_start_token_id"] == 0


def test_runs_have_a_folder_each(recipe: Path, tmp_path: Path, invoke: Invoke) -> None:
    recipe.write_text(RECIPE + "[runs.one]\n[runs.two]\nmodel.pre_norm = true\n")
    result = invoke("train", recipe, "-o", tmp_path / "out", "--steps", 2)
    assert result.code == 0 and "one: exact" in result.out and "two: exact" in result.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one", "two", "loss.png"}


def test_ctrl_c_keeps_the_checkpoint(
    recipe: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    steps = iter(range(10))
    real = Translation.loss
    monkeypatch.setattr(Translation, "loss", lambda *args: real(*args) if next(steps) < 6 else interrupted())
    stopped = invoke("train", recipe, "-o", tmp_path / "out")
    assert stopped.code == 130 and "--resume goes on from the last checkpoint" in stopped.err
    assert list(snapshot(tmp_path / "out")) == ["training.safetensors"]
    monkeypatch.undo()
    assert invoke("train", recipe, "-o", tmp_path / "out", "--resume").code == 0
    assert invoke("train", recipe, "-o", tmp_path / "whole").code == 0
    resumed, whole = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("out", "whole"))
    assert resumed["losses"] == whole["losses"]


class TestRefusals:
    def test_usage(self, tmp_path: Path, invoke: Invoke) -> None:
        assert invoke("train").code == invoke("train", "gpt").code == 2
        assert invoke("train", "-o", tmp_path / "out").code == 2

    def test_a_folder_with_something_in_it(self, recipe: Path, tmp_path: Path, invoke: Invoke) -> None:
        before = snapshot(tmp_path)
        result = invoke("train", recipe, "-o", tmp_path)
        assert result.code == 2 and "--resume" in result.err and snapshot(tmp_path) == before

    def test_no_such_recipe(self, tmp_path: Path, invoke: Invoke) -> None:
        assert_refused(invoke("train", "norm", "-o", tmp_path / "out"), "did you mean 'norms'")

    def test_a_file_in_the_way(self, recipe: Path, invoke: Invoke) -> None:
        assert_refused(invoke("train", recipe, "-o", recipe), "is a file")

    def test_without_matplotlib(
        self, recipe: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        assert_refused(invoke("train", recipe, "-o", tmp_path / "out"), "onnxsmith[report]")
        assert not (tmp_path / "out").exists()

    def test_without_torch(self, recipe: Path) -> None:
        code = "import sys; sys.modules['torch'] = None; from onnxsmith.cli.main import run; "
        code += f"sys.exit(run(['train', {str(recipe)!r}, '-o', 'out']))"
        child = subprocess.run([sys.executable, "-c", code], cwd=recipe.parent, capture_output=True, text=True)
        assert child.returncode == 3 and "onnxsmith[torch]" in child.stderr
        assert not (recipe.parent / "out").exists()
