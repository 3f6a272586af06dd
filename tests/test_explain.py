"""``explain`` as a gate, and as the rules' own documentation."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxsmith.passes import lift
from tests.command import Invoke


def write(path: Path, blocked: float) -> Path:
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 18]>
        attention (float[B,2,S,4] q, float[B,2,4,T] k, float[B,2,T,4] v, bool[S,T] open) => (float[B,2,S,4] y)
        <float low = {{{blocked}}}>
        {{
            scores = MatMul(q, k)
            masked = Where(open, scores, low)
            shares = Softmax<axis=-1>(masked)
            y = MatMul(shares, v)
        }}"""
    )
    onnx.save(model, path)
    return path


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    return write(tmp_path / "fused.onnx", blocked=-1e9)


@pytest.fixture
def unfused(tmp_path: Path) -> Path:
    """Scores that are blocked with a number that is not low: no attention operator does that."""
    return write(tmp_path / "unfused.onnx", blocked=-3.0)


@pytest.mark.parametrize("gate", ["attention=all", "attention=1", "attention=0", "norm=0, attention=all"])
def test_a_gate_that_holds(invoke: Invoke, fused: Path, gate: str) -> None:
    result = invoke("explain", fused, "--require", gate)
    assert result.code == 0
    assert "attention" in result.out


@pytest.mark.parametrize(
    ("gate", "mention"),
    [("attention=2", "1 of 1 attention sites are fused, 2"), ("norm=all", "0 of 0 norm sites are fused, all")],
)
def test_a_gate_that_does_not(invoke: Invoke, fused: Path, gate: str, mention: str) -> None:
    result = invoke("explain", fused, "--require", gate)
    assert result.code == 1
    assert mention in result.err


def test_the_reason_of_the_first_miss(invoke: Invoke, unfused: Path) -> None:
    result = invoke("explain", unfused, "--require", "attention=all", "--json")
    assert result.code == 1
    assert '"missed"' in result.out
    assert "0 of 1 attention sites" in result.err and "Softmax" in result.err and "-1e4" in result.err


@pytest.mark.parametrize("gate", ["", "attention", "attention=", "attention=some", "attention=-1", "heads=all"])
def test_a_gate_that_cannot_be_read(invoke: Invoke, fused: Path, gate: str) -> None:
    result = invoke("explain", fused, "--require", gate)
    assert (result.code, result.out, "--require" in result.err) == (2, "", True)


@pytest.mark.parametrize("rule", sorted({rule.name for rule in lift.RULES}))
def test_every_rule_says_what_it_does(invoke: Invoke, rule: str) -> None:
    result = invoke("explain", "--rule", rule)
    assert result.code == 0
    assert len(result.out.splitlines()) > 1


def test_an_unknown_rule(invoke: Invoke) -> None:
    result = invoke("explain", "--rule", "attenshun")
    assert (result.code, result.out, "attention-heads" in result.err) == (2, "", True)
