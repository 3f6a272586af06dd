"""Named configs: their parameter counts are those of the papers, and the small ones compile with every site fused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from onnxsmith.compiler.export import export
from onnxsmith.compiler.optimize import optimize
from onnxsmith.errors import BadInput
from onnxsmith.models import registry

# As counted on the published checkpoints, tied heads once; BERT's 110M and 340M include a pooler, which these lack.
PUBLISHED = {
    "bert-base": 108_891_648,
    "bert-large": 334_092_288,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
    "qwen2-0.5b": 494_032_768,
    "smollm2-135m": 134_515_008,
}
# Brown et al. 2020, table 2.1: in the title, layers, width.
GPT3 = {
    "gpt3-small": (125e6, 12, 768),
    "gpt3-medium": (350e6, 24, 1024),
    "gpt3-large": (760e6, 24, 1536),
    "gpt3-xl": (1.3e9, 24, 2048),
    "gpt3-2.7b": (2.7e9, 32, 2560),
    "gpt3-6.7b": (6.7e9, 32, 4096),
    "gpt3-13b": (13e9, 40, 5120),
    "gpt3-175b": (175e9, 96, 12288),
}


def parameters(name: str) -> int:
    return sum(p.numel() for p in registry.sketch(name)[0].parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name: str) -> None:
    assert parameters(name) == PUBLISHED[name]


@pytest.mark.parametrize("name", GPT3)
def test_parameters_of_gpt3(name: str) -> None:
    """By hand: two tables, and per layer twelve squares, nine biases of one width and two norms."""
    title, layers, width = GPT3[name]
    found = parameters(name)
    assert found == (50257 + 2048) * width + layers * (12 * width**2 + 13 * width) + 2 * width
    assert found == pytest.approx(title, rel=0.03)


@pytest.mark.parametrize("name", ["bert-tiny", "gpt-tiny", "llama-tiny"])
def test_every_site_of_a_small_one_is_fused(tmp_path: Path, name: str) -> None:
    report = optimize(export(name, tmp_path / "model"), tmp_path / "fast", verify="final")
    assert [site for site in report.sites if site.status == "missed"] == []
    layers = 2
    norms = {"bert-tiny": 1 + 2 * layers, "gpt-tiny": 2 * layers + 1, "llama-tiny": 2 * layers + 1}[name]
    assert Counter(site.kind for site in report.sites) == {"attention": layers, "norm": norms, "activation": layers}
    assert report.parity is not None and report.parity.fine and not report.parity.note


def test_no_such_config() -> None:
    with pytest.raises(BadInput, match="gpt5.*bert-base"):
        registry.build("gpt5")


def test_weights_larger_than_memory_are_refused() -> None:
    with pytest.raises(BadInput, match="gpt3-175b.*698 GB"):
        registry.build("gpt3-175b")
