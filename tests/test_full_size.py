"""The published sizes go the whole way: export, optimize, verify, with every site fused."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxsmith

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["bert-base", "gpt2", "transformer-base", "bart-base", "t5-small"])
def test_every_site_is_fused(tmp_path: Path, name: str) -> None:
    exported = onnxsmith.export(name, tmp_path / "raw")
    report = onnxsmith.optimize(exported, tmp_path / "fast")
    missed = [f"{site.where}: {site.reason}" for site in report.sites if site.status == "missed"]
    assert report.sites and not missed
    assert report.parity is not None and report.parity.fine, report.parity
    assert report.bytes_after < 1.01 * report.bytes_before
