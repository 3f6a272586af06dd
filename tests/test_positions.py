"""Positions: rotary with every scaling against the transformers library, ALiBi against BLOOM's, and their formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from onnxsmith.compiler.artifact import write_artifact
from onnxsmith.compiler.export import to_onnx
from onnxsmith.compiler.optimize import optimize
from onnxsmith.errors import BadInput
from onnxsmith.models.bert import Bert, BertConfig
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.gpt import Gpt, GptConfig
from onnxsmith.models.heads import LanguageModel
from onnxsmith.models.parts import language_tasks
from onnxsmith.models.positions import (
    POSITIONS,
    LearnedPositions,
    Rotary,
    alibi,
    alibi_slopes,
    rotate,
    sinusoidal,
    token_positions,
)
from tests.parity import LIMIT, batches, randomized, relative_rms

LENGTH, SIZE, THETA = 32, 16, 1000.0
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0, **LLAMA3},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 0.7},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4, "truncate": False},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "mscale": 0.7, "mscale_all_dim": 0.4},
]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("length", [5, LENGTH, 3 * LENGTH])
@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_rotary(scaling: dict[str, Any], length: int) -> None:
    config = transformers.LlamaConfig(
        hidden_size=2 * SIZE,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        rope_parameters={"rope_theta": THETA, **scaling},
    )
    positions = torch.arange(length)[None]
    q, k = random(1, 2, length, SIZE), random(1, 1, length, SIZE)
    expected = apply_rotary_pos_emb(q, k, *LlamaRotaryEmbedding(config)(q, positions))
    tables = Rotary(SIZE, THETA, LENGTH, scaling).tables(positions)
    for x, wanted in zip((q, k), expected, strict=True):
        assert relative_rms(rotate(x, tables), wanted) < LIMIT


def test_rotary_products_depend_on_the_distance_alone() -> None:
    x = random(1, 1, 1, SIZE).expand(1, 1, 9, SIZE)
    tables = Rotary(SIZE, THETA, LENGTH, {}).tables(torch.arange(9)[None])
    scores = rotate(x, tables)[0, 0] @ rotate(x, tables)[0, 0].T
    for distance in range(9):
        torch.testing.assert_close(scores.diagonal(distance), scores[0, distance].expand(9 - distance))


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12, 16])
def test_alibi(heads: int) -> None:
    """BLOOM's bias grows with the key's place alone; a softmax does not see the difference."""
    mask = torch.ones(1, 7, dtype=torch.int64)
    expected = build_alibi_tensor(mask, heads, torch.float32).reshape(1, heads, 1, 7)
    places = token_positions(mask)
    later = torch.full((7, 7), -torch.inf).triu(1)
    found = alibi(places, places, heads) + later
    torch.testing.assert_close(found.softmax(-1), (expected + later).softmax(-1))
    assert len(alibi_slopes(heads)) == heads


@pytest.mark.parametrize("interleaved", [True, False])
def test_sinusoidal(interleaved: bool) -> None:
    found = sinusoidal(torch.arange(5)[None], 8, interleaved=interleaved)[0]
    for position in range(5):
        angles = [position / 10000 ** (2 * i / 8) for i in range(4)]
        sines, cosines = [math.sin(a) for a in angles], [math.cos(a) for a in angles]
        pairs = [x for pair in zip(sines, cosines, strict=True) for x in pair]
        torch.testing.assert_close(found[position], torch.tensor(pairs if interleaved else sines + cosines))


def test_learned_positions_start_after_their_offset() -> None:
    table = LearnedPositions(10, 4, offset=2)
    assert torch.equal(table(torch.tensor([[0, 3]])), table.weight[[2, 5]][None])


def test_positions_count_tokens() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    assert token_positions(mask)[mask.bool()].tolist() == [0, 1, 2, 0, 1]
    assert int(token_positions(mask).min()) == 0


@pytest.mark.parametrize("kind", POSITIONS)
def test_a_decoder_with_any_positions_ignores_padding(kind: str) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Gpt(GptConfig(**sizes, max_position_embeddings=40, positions=kind)).eval()
    for batch in batches(99):
        with torch.no_grad():
            found = model(batch.input_ids, batch.attention_mask)
            for row, text in batch.texts():
                alone = model(text["input_ids"], text["attention_mask"])[0]
                assert relative_rms(found[row][batch.attention_mask[row].bool()], alone) < LIMIT


@pytest.mark.parametrize("kind", POSITIONS)
def test_an_encoder_with_any_positions_ignores_padding(kind: str) -> None:
    torch.manual_seed(0)
    model = Bert(BertConfig(99, 32, 2, 4, 48, 40, positions=kind)).eval()
    for batch in batches(99):
        with torch.no_grad():
            found = model(batch.input_ids, batch.attention_mask)
            for row, text in batch.texts():
                alone = model(text["input_ids"], text["attention_mask"])[0]
                assert relative_rms(found[row][batch.attention_mask[row].bool()], alone) < LIMIT


@pytest.mark.parametrize("kind", POSITIONS)
def test_an_encoder_with_any_positions_knows_the_order(kind: str) -> None:
    torch.manual_seed(0)
    model = randomized(Bert(BertConfig(99, 32, 1, 4, 48, 40, positions=kind)))
    ids, mask = torch.tensor([[1, 2, 3], [2, 1, 3]]), torch.ones(2, 3, dtype=torch.int64)
    last = model(ids, mask)[:, -1]
    assert not torch.allclose(last[0], last[1], atol=1e-4)


@pytest.mark.parametrize(
    "kind", ["alibi", *(pytest.param(k, marks=pytest.mark.slow) for k in POSITIONS if k != "alibi")]
)
def test_a_decoder_with_any_positions_and_its_cache_compiles(kind: str, tmp_path: Path) -> None:
    sizes = GptConfig(99, 32, 2, 4, 40, positions=kind)
    tasks = language_tasks(99, 40, sizes.cache)
    model = Checkpoint(randomized(LanguageModel(Gpt(sizes))), tasks[0], {}, parts=tasks[1:])
    write_artifact(tmp_path / "m.onnx", to_onnx(model.for_task("causal-lm-with-past")), {})
    report = optimize(tmp_path / "m.onnx", None, verify="final")
    assert [site for site in report.sites if site.status == "missed"] == []
    assert report.parity is not None and report.parity.fine


@pytest.mark.parametrize("kind", POSITIONS)
def test_a_decoder_with_any_positions_knows_the_order(kind: str) -> None:
    torch.manual_seed(0)
    model = randomized(Gpt(GptConfig(99, 32, 1, 4, 40, positions=kind)))
    ids, mask = torch.tensor([[1, 2, 3], [2, 1, 3]]), torch.ones(2, 3, dtype=torch.int64)
    last = model(ids, mask)[:, -1]
    assert not torch.allclose(last[0], last[1], atol=1e-4)


@pytest.mark.parametrize(
    ("make", "mention"),
    [
        (lambda: Rotary(5, THETA, LENGTH, {}), "even head size"),
        (lambda: Rotary(SIZE, THETA, LENGTH, {"type": "su"}), "'su'"),
        (lambda: Rotary(SIZE, THETA, LENGTH, {"type": "yarn", "factor": 2}), "original_max_position_embeddings"),
        (lambda: Rotary(SIZE, THETA, LENGTH, {"type": "dynamic", "factor": -1}), "factor = -1"),
        (lambda: sinusoidal(torch.arange(3)[None], 7), "even hidden size"),
        (lambda: Gpt(GptConfig(positions="absolute")), "'absolute'"),
    ],
)
def test_what_cannot_be_built(make: Any, mention: str) -> None:
    with pytest.raises(BadInput, match=mention):
        make()
