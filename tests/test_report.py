"""What a report says in one line."""

from __future__ import annotations

from onnxsmith.compiler.report import ParityReport
from onnxsmith.compiler.verify import Evidence
from onnxsmith.runtime.parity import ErrorRatio


def evidence(output: str, rms: float, finite: bool = True) -> Evidence:
    return Evidence("whole model", output, ErrorRatio(rms, rms, 1e-7, finite), "long", 7, 1e-7)


def test_the_worst_of_many_outputs_are_told() -> None:
    found = [evidence(f"present.{n}.key", 1 + n / 100) for n in range(60)] + [evidence("broken", 0.5, finite=False)]
    line = str(ParityReport(found))
    assert line.startswith("broken 0.50x rms")
    assert "present.59.key 1.59x rms" in line and "present.58.key" in line and "present.57.key" not in line
    assert line.endswith("; 58 outputs more")


def test_few_outputs_are_all_told() -> None:
    assert str(ParityReport([evidence("y", 1.0), evidence("z", 1.5)])).count("rms") == 2
