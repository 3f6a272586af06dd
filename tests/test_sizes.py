"""Sizes of the named configs, and the command that lists them."""

from __future__ import annotations

import json

import pytest

from onnxsmith.models import registry, sizes
from tests.command import Invoke


@pytest.mark.parametrize("name", ["gpt2", "llama3-8b", "smollm2-135m"])
def test_a_token_takes_two_flops_per_weight_of_a_product(name: str) -> None:
    """Every weight but norms, biases and tables that are only looked up; a tied table is a product too."""
    module, _ = registry.sketch(name)
    head = getattr(module, "head", None)
    products = sum(p.numel() for n, p in module.named_parameters() if p.dim() == 2 and ".position." not in n)
    looked_up = registry.CONFIGS[name].vocab_size * registry.CONFIGS[name].hidden_size if head is not None else 0
    attention = 4 * registry.CONFIGS[name].num_hidden_layers * registry.CONFIGS[name].hidden_size
    found = sizes.size_of(name).flops
    assert found - 2 * (products - looked_up) in (0, attention)  # one token may be seen as attending to itself


def test_memory_by_precision() -> None:
    memory = sizes.size_of("gpt3-175b").memory
    assert {name: round(size / 1e9) for name, size in memory.items()} == {
        "fp32": 698,
        "fp16": 349,
        "int8": 175,
        "int4": 87,
    }


class TestCommand:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The whole list takes seconds; two of it show the form."""
        monkeypatch.setattr(sizes, "CONFIGS", ["bert-tiny", "gpt-tiny"])

    def test_table(self, invoke: Invoke) -> None:
        result = invoke("models")
        assert (result.code, result.err) == (0, "")
        assert all(part in result.out for part in ("bert-tiny", "gpt-tiny", "parameters", "int4"))

    def test_json(self, invoke: Invoke) -> None:
        bert, gpt = json.loads(invoke("models", "--json").out)
        assert bert == sizes.size_of("bert-tiny").to_json()
        assert (gpt["name"], gpt["bytes"]["fp32"]) == ("gpt-tiny", 4 * gpt["parameters"])
