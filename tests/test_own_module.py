"""The worked example of docs/own-module.md, run as a user would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onnxsmith.compiler.export import export
from onnxsmith.compiler.optimize import optimize

PAGE = Path(__file__).parents[1] / "docs" / "own-module.md"


def test_the_example_exports_and_fuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mymodel.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    export("mymodel:classifier", "classifier")
    report = optimize("classifier", "fast", strict=True)
    assert [(s.kind, s.status) for s in report.sites] == [("attention", "fused"), ("norm", "already fused")]
    assert report.sites[0].detail == "4 heads of 16, mask padding of attention_mask"
    assert report.parity is not None and report.parity.fine
