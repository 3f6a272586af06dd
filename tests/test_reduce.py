"""Reduce: planted faults come down to the nodes that have them, as files that show it with plain onnxruntime."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxsmith
from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.reduce.smallest import smallest
from onnxsmith.compiler.reduce.trial import Failure
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime import child
from tests.command import Invoke
from tests.tiny import write_bert

Plant = Callable[[ir.Model], None]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny BERT as exported, and optimized."""
    folder = tmp_path_factory.mktemp("reduce")
    raw, fast = folder / "raw", folder / "fast"
    onnxsmith.export("bert", raw, checkpoint=write_bert(folder / "bert"))
    onnxsmith.optimize(raw, fast, verify="off")
    return raw, fast


def planted(fast: Path, folder: Path, plant: Plant) -> Path:
    model = load_model(fast)
    plant(model)
    write_model(folder / "bad.onnx", model)
    return folder / "bad.onnx"


def nth(model: ir.Model, operator: str, n: int) -> ir.Node:
    return [node for node in model.graph if node.op_type == operator][n]


def wrong_epsilon(model: ir.Model) -> None:
    nth(model, "LayerNormalization", 3).attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-2)


def wrong_scale(model: ir.Model) -> None:
    nth(model, "Attention", 1).attributes["scale"] = ir.AttrFloat32("scale", 0.5)


def swapped_operands(model: ir.Model) -> None:
    node = nth(model, "Attention", 1)
    key, value = node.inputs[1:3]
    node.replace_input_with(1, value)
    node.replace_input_with(2, key)


def unknown_operator(model: ir.Model) -> None:
    node = nth(model, "Gelu", 1)
    node.domain, node.op_type = "com.microsoft", "NoSuchKernel"
    model.graph.opset_imports["com.microsoft"] = 1


@pytest.mark.parametrize(
    ("plant", "kind", "operator", "most"),
    [
        (wrong_epsilon, "different", "LayerNormalization", 1),
        (wrong_scale, "different", "Attention", 5),
        (swapped_operands, "different", "Attention", 5),
        (unknown_operator, "refused", "com.microsoft.NoSuchKernel", 1),
    ],
)
def test_a_planted_fault(
    pair: tuple[Path, Path], tmp_path: Path, plant: Plant, kind: str, operator: str, most: int
) -> None:
    raw, fast = pair
    bad, out = planted(fast, tmp_path, plant), tmp_path / "small"
    found = onnxsmith.reduce(bad, out, against=raw)
    assert found.failure.kind == kind
    assert operator in {suspect.operator for suspect in found.suspects}
    assert len(found.suspects) <= most < found.nodes_before
    ended = subprocess.run([sys.executable, "reproduce.py"], cwd=out, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert str(tmp_path) not in (out / "reproduce.py").read_text()


def test_what_stands_in_for_the_fault_is_right(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """The original's part beside the reduced one passes on the same inputs and expectations."""
    raw, fast = pair
    out = tmp_path / "small"
    onnxsmith.reduce(planted(fast, tmp_path, wrong_epsilon), out, against=raw)
    original = out / "original.onnx"
    names = [v.name for v in load_model(original).graph.inputs]
    assert names == [v.name for v in load_model(out / "model.onnx").graph.inputs]
    original.replace(out / "model.onnx")
    ended = subprocess.run([sys.executable, "reproduce.py"], cwd=out, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_an_equal_model_is_told(pair: tuple[Path, Path], tmp_path: Path) -> None:
    raw, fast = pair
    with pytest.raises(BadInput, match="nothing fails on 7 sets of inputs"):
        onnxsmith.reduce(fast, tmp_path / "small", against=raw)
    assert not (tmp_path / "small").exists()


@pytest.mark.slow
def test_it_is_deterministic(pair: tuple[Path, Path], tmp_path: Path) -> None:
    raw, fast = pair
    bad = planted(fast, tmp_path, unknown_operator)
    first, second = (onnxsmith.reduce(bad, tmp_path / name, against=raw) for name in ("a", "b"))
    assert (first.suspects, first.trials, first.failure) == (second.suspects, second.trials, second.failure)


def test_the_command(pair: tuple[Path, Path], tmp_path: Path, invoke: Invoke) -> None:
    raw, fast = pair
    bad = planted(fast, tmp_path, wrong_epsilon)
    result = invoke("reduce", bad, "--against", raw, "-o", tmp_path / "small")
    assert result.code == 0, result.err
    assert "reduced to 1" in result.out and "LayerNormalization" in result.out
    assert "relative RMS error" in result.err
    again = invoke("reduce", bad, "--against", raw, "-o", tmp_path / "small")
    assert (again.code, again.out) == (2, "")
    assert "give the name of a new folder" in again.err


def test_trials_are_counted() -> None:
    with pytest.raises(BadUsage, match="at least 1"):
        onnxsmith.reduce("x.onnx", "y", trials=0)


@given(st.sets(st.integers(0, 39), min_size=1, max_size=4))
def test_delta_debugging_finds_what_is_needed(needed: set[int]) -> None:
    found, _ = smallest(range(40), lambda part: needed <= set(part), trials=1000)
    assert found == sorted(needed)


def test_delta_debugging_stops() -> None:
    asked: list[Sequence[int]] = []

    def fails(part: Sequence[int]) -> bool:
        asked.append(part)
        return {3, 30} <= set(part)

    found, trials = smallest(range(40), fails, trials=5)
    assert len(asked) == trials == 5
    assert {3, 30} <= set(found)


def test_failures_of_one_kind_are_alike() -> None:
    first, second = (
        Failure("fails", f"while running Add node. Name:'{name}' Status: 3 by {n}, axis is {n}")
        for name, n in (("/layers.0/Add", 7), ("add_3", 64))
    )
    assert first.likeness == second.likeness
    assert first.likeness != Failure("fails", "out of memory").likeness


class TestChild:
    def test_a_run(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        model = load_model(pair[0])
        write_model(tmp_path / child.MODEL, model)
        ids = np.ones((1, 3), np.int64)
        ran = child.run_in_child(tmp_path, {str(v.name): ids for v in model.graph.inputs})
        assert ran.kind == "fine"
        assert set(ran.outputs) == {v.name for v in model.graph.outputs}

    def test_bad_inputs_fail(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        model = load_model(pair[0])
        write_model(tmp_path / child.MODEL, model)
        ran = child.run_in_child(tmp_path, {str(v.name): np.full((1, 3), 9999) for v in model.graph.inputs})
        assert ran.kind == "fails"
        assert "out of" in ran.message

    def test_a_crash_ends_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        dying = tmp_path / "python"
        dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
        dying.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(dying))
        ran = child.run_in_child(tmp_path, {})
        assert (ran.kind, ran.message) == ("crashes", "the process ended with signal 11")

    def test_a_hang_ends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sleeping = tmp_path / "python"
        sleeping.write_text("#!/bin/sh\nexec sleep 60\n")
        sleeping.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(sleeping))
        assert child.run_in_child(tmp_path, {}, seconds=0.2).kind == "hangs"
