"""`verify` and `bisect` from the command line: what is right passes, what was changed behind our back does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.cli.main import run
from onnxsmith.errors import BadInput
from tests.toy import encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An original and its optimized artifact."""
    path = tmp_path_factory.mktemp("verified")
    ir.save(encoder(), path / "original.onnx")
    onnxsmith.optimize(path / "original.onnx", path / "fast")
    return path


def spoiled(folder: Path, output: Path) -> Path:
    """The optimized model with one scale changed, as a file of its own."""
    model = ir.load(folder / "model.onnx")
    node = next(n for n in model.graph if "num_heads" in n.attributes or "q_num_heads" in n.attributes)
    node.attributes["scale"] = ir.AttrFloat32("scale", 1.5)
    ir.save(model, output)
    return output


def test_every_part_and_the_whole_are_fine(folder: Path) -> None:
    found = onnxsmith.verify(folder / "fast", against=folder / "original.onnx")
    assert found.fine and found.certified and not found.files
    assert len(found.parts) > 3 and any(part.evidence for part in found.parts)
    named = [name for part in found.parts for name in part.nodes]
    assert len(named) == len(set(named))


def test_a_changed_model_is_found_out_and_the_part_named(folder: Path, tmp_path: Path) -> None:
    found = onnxsmith.verify(spoiled(folder / "fast", tmp_path / "bad.onnx"), against=folder / "original.onnx")
    assert not found.fine
    (wrong,) = [part for part in found.parts if not part.fine]
    assert "attention" in wrong.rules


def test_another_original_is_told(folder: Path, tmp_path: Path) -> None:
    model = encoder()
    model.producer_name = "somebody else"
    ir.save(model, tmp_path / "original.onnx")
    found = onnxsmith.verify(folder / "fast", against=tmp_path / "original.onnx")
    assert found.files == (str(tmp_path / "original.onnx"),) and not found.fine


def test_the_certificate_lists_rewrites_inputs_and_errors(folder: Path) -> None:
    told = json.loads((folder / "fast" / "certificate.json").read_text(encoding="utf-8"))
    assert set(told["files"]) >= {"model.onnx"} and set(told["source"]) == {"original.onnx"}
    assert told["verify"] == "final" and {case["name"] for case in told["inputs"]} >= {"one token", "left padding"}
    part = next(part for part in told["parts"] if "attention" in part["rules"])
    assert part["nodes"] and part["evidence"][0]["rms"] <= 2


def test_no_certificate_without_verification(folder: Path, tmp_path: Path) -> None:
    onnxsmith.optimize(folder / "original.onnx", tmp_path / "fast", verify="off")
    assert not (tmp_path / "fast" / "certificate.json").exists()


def test_command_line_says_and_exits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    against = ["--against", str(folder / "original.onnx")]
    assert run(["verify", str(folder / "fast"), *against]) == 0
    assert capsys.readouterr().out.rstrip().endswith("verified")
    assert run(["verify", str(spoiled(folder / "fast", tmp_path / "bad.onnx")), *against]) == 1
    assert "WRONG" in capsys.readouterr().out
    assert run(["bisect", str(folder / "original.onnx")]) == 0
    assert "nothing is wrong after" in capsys.readouterr().out
    assert run(["bisect", str(folder / "original.onnx"), "--precision", "int8", "--budget", "rms=0.001"]) == 1
    assert "int8-product" in capsys.readouterr().out


def test_a_lossy_model_is_judged_by_its_own_figure_or_a_budget(folder: Path, tmp_path: Path) -> None:
    original, fast = folder / "original.onnx", tmp_path / "fast"
    onnxsmith.optimize(original, fast, precision="int8")
    found = onnxsmith.verify(fast, against=original)
    assert found.fine and found.closeness and found.budget is not None and not found.whole
    assert not onnxsmith.verify(fast, against=original, budget="rms=1e-6").fine
    (tmp_path / "other").mkdir()
    shutil.copy(fast / "onnxsmith.json", tmp_path / "other")
    assert not onnxsmith.verify(spoiled(fast, tmp_path / "other" / "model.onnx"), against=original).fine


def test_a_lossy_model_without_a_figure_needs_a_budget(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    against = ["--against", str(folder / "original.onnx")]
    onnxsmith.optimize(folder / "original.onnx", tmp_path / "fast", precision="int8", verify="off")
    assert run(["verify", str(tmp_path / "fast"), *against]) == 3
    assert "nothing says what that cost; give a --budget" in capsys.readouterr().err
    assert run(["verify", str(tmp_path / "fast"), *against, "--budget", "cosine=0.9"]) == 0
    assert "allowed is cosine=0.9" in capsys.readouterr().out


def test_a_broken_certificate_is_told(folder: Path, tmp_path: Path) -> None:
    onnxsmith.optimize(folder / "original.onnx", tmp_path / "fast")
    (tmp_path / "fast" / "certificate.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="certificate.json: no JSON"):
        onnxsmith.verify(tmp_path / "fast", against=folder / "original.onnx")
