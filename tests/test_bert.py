"""BERT against a second, independent implementation in NumPy, under every kind of padding, and its sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onnxsmith.models import registry
from onnxsmith.models.bert import Bert, BertConfig
from onnxsmith.models.checkpoint import Checkpoint, load_checkpoint
from tests.checkpoints import MEAN, write_checkpoint
from tests.tiny import CONFIG, bert_tensors

Array = NDArray[Any]
erf = np.vectorize(math.erf)

ACTIVATIONS = {
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_new": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def bert(w: dict[str, Array], ids: Array, segments: Array, act: str, heads: int) -> Array:
    """The hidden states [S, E] of one sentence without padding, ids and segments [S]; after the paper."""
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][segments]
    x = norm(w, "embeddings.LayerNorm", x + w["embeddings.position_embeddings.weight"][: len(ids)])
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            linear(w, f"{layer}.attention.self.{name}", x).reshape(len(ids), heads, -1)
            for name in ("query", "key", "value")
        )
        scores = np.einsum("shd,thd->hst", q, k) / math.sqrt(q.shape[-1])
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        mixed = np.einsum("hst,thd->shd", weights, v).reshape(x.shape)
        x = norm(w, f"{layer}.attention.output.LayerNorm", x + linear(w, f"{layer}.attention.output.dense", mixed))
        inner = ACTIVATIONS[act](linear(w, f"{layer}.intermediate.dense", x))
        x = norm(w, f"{layer}.output.LayerNorm", x + linear(w, f"{layer}.output.dense", inner))
    return x


def linear(w: dict[str, Array], name: str, x: Array) -> Array:
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])


def norm(w: dict[str, Array], name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + CONFIG["layer_norm_eps"])
    return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])


def weights() -> dict[str, Array]:
    """In double precision, and large enough that attention is far from uniform."""
    return {name: value.astype(np.float64) * 4 for name, value in bert_tensors().items()}


def sentences(count: int) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, CONFIG["vocab_size"], size) for size in rng.integers(1, 20, count)]


def batch(texts: list[Array], side: str, spare: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [B, S] with padding on one side; what stands in the padding must not matter."""
    longest = max(map(len, texts)) + spare
    ids, mask = np.full((len(texts), longest), 99), np.zeros((len(texts), longest), np.int64)
    for row, text in enumerate(texts):
        place = slice(0, len(text)) if side == "right" else slice(longest - len(text), longest)
        ids[row, place], mask[row, place] = text, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def relative_error(found: Array, expected: Array) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_hidden_states_are_those_of_the_paper(tmp_path: Path, act: str, heads: int) -> None:
    tensors = {name: value.astype(np.float32) for name, value in weights().items()}
    config = {"hidden_act": act, "num_attention_heads": heads}
    module = load_checkpoint(write_checkpoint(tmp_path / "c", config=config, tensors=tensors)).module
    for ids in sentences(3):
        segments = np.arange(len(ids)) % 2
        given = (torch.from_numpy(x)[None] for x in (ids, np.ones_like(ids), segments))
        with torch.no_grad():
            found = module(*given)[0].numpy()
        assert relative_error(found, bert(weights(), ids, segments, act, heads)) < 1e-5


class TestPadding:
    @pytest.fixture
    def embedder(self, tmp_path: Path) -> Checkpoint:
        return load_checkpoint(write_checkpoint(tmp_path / "c", pooling=MEAN))

    def embed(self, embedder: Checkpoint, ids: torch.Tensor, mask: torch.Tensor) -> Array:
        with torch.no_grad():
            return np.asarray(embedder.module(ids, mask, torch.zeros_like(ids))[1].numpy())

    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("spare", [0, 1, 30])
    def test_padding_does_not_change_an_embedding(self, embedder: Checkpoint, side: str, spare: int) -> None:
        texts = sentences(6)
        padded = self.embed(embedder, *batch(texts, side, spare))
        for row, text in zip(padded, texts, strict=True):
            alone = self.embed(embedder, *batch([text], "right"))[0]
            assert relative_error(row, alone) < 1e-5

    def test_a_sentence_of_nothing_but_padding_is_finite(self, embedder: Checkpoint) -> None:
        ids, mask = batch(sentences(2), "right")
        mask[0] = 0
        assert np.isfinite(self.embed(embedder, ids, mask)).all()

    def test_embeddings_have_unit_length(self, embedder: Checkpoint) -> None:
        lengths = np.linalg.norm(self.embed(embedder, *batch(sentences(5), "left")), axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def parameters(c: BertConfig) -> int:
    """By hand: tables, and per layer four square products, two wide ones and two norms, all with biases."""
    e, f = c.hidden_size, c.intermediate_size
    tables = (c.vocab_size + c.max_position_embeddings + c.type_vocab_size) * e + 2 * e
    layer = 4 * (e * e + e) + (e * f + f) + (f * e + e) + 2 * 2 * e
    return tables + c.num_hidden_layers * layer


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert-base", 108_891_648),
        ("bert-large", 334_092_288),
        ("minilm-l6", 22_565_376),
        ("bert-tiny", 23_360),
    ],
)
def test_sizes(name: str, expected: int) -> None:
    """110M, 340M and 22.7M in the papers, with the pooler that an encoder does without."""
    config = registry.CONFIGS[name]
    with torch.device("meta"):
        module = Bert(config)
    assert sum(p.numel() for p in module.parameters()) == parameters(config) == expected


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = (registry.build("bert-tiny", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)  # the caller's generator is left alone
    states = [list(found.module.state_dict().values()) for found in (first, second, other)]
    assert all(map(torch.equal, states[0], states[1]))
    assert not all(map(torch.equal, states[0], states[2]))
