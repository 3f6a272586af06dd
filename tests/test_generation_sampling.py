"""Drawing tokens: the distributions in closed form, and seeds."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as theirs

from onnxsmith.runtime.generation.candidates import of_logits
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.sampling import Sampler, candidates
from tests.generation import ours, rows_of

LOGITS = np.log(np.array([0.05, 0.4, 0.1, 0.25, 0.2], np.float32))


def distribution(**settings: Any) -> list[float]:
    tokens, probabilities = candidates(LOGITS, GenerationConfig(do_sample=True, **settings))
    found = np.zeros(len(LOGITS))
    found[tokens] = probabilities
    return [float(p) for p in found]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.05, 0.4, 0.1, 0.25, 0.2]),
        ({"top_k": 2}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"top_k": 0, "top_p": 0.5}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"top_p": 0.1}, [0, 1, 0, 0, 0]),
        ({"min_p": 0.3}, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        ({"temperature": 0.5}, [0.0025 / 0.275, 0.16 / 0.275, 0.01 / 0.275, 0.0625 / 0.275, 0.04 / 0.275]),
        ({"top_k": 3, "top_p": 0.6}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
    ],
    ids=str,
)
def test_distributions(settings: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_allclose(distribution(**settings), expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_distributions_of_transformers(seed: int) -> None:
    logits = np.random.default_rng(seed).standard_normal(50).astype(np.float32) * 3
    scores = torch.from_numpy(logits)[None]
    for warper in (
        theirs.TemperatureLogitsWarper(0.7),
        theirs.TopKLogitsWarper(20),
        theirs.TopPLogitsWarper(0.9),
        theirs.MinPLogitsWarper(0.02),
    ):
        scores = warper(torch.zeros(1, 1, dtype=torch.int64), scores)
    expected = torch.softmax(scores, -1)[0].numpy()
    config = GenerationConfig(do_sample=True, temperature=0.7, top_k=20, top_p=0.9, min_p=0.02)
    tokens, probabilities = candidates(logits, config)
    assert sorted(tokens) == np.flatnonzero(expected).tolist()
    np.testing.assert_allclose(probabilities, expected[tokens], rtol=1e-5)


def test_draws_are_as_likely_as_their_probabilities() -> None:
    """20,000 draws: the chi-squared statistic of 4 degrees of freedom exceeds 23.5 once in 10,000 times."""
    count = 20_000
    sampler = Sampler(GenerationConfig(do_sample=True, seed=0), count)
    drawn = sampler.draw(np.broadcast_to(LOGITS, (count, 5)), np.arange(count))
    expected = np.exp(LOGITS) * count
    assert float(((np.bincount(drawn, minlength=5) - expected) ** 2 / expected).sum()) < 23.5


def test_a_row_draws_the_same_whoever_is_beside_it() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 30)).astype(np.float32)
    config = GenerationConfig(do_sample=True, seed=5)
    whole = Sampler(config, 4).draw(logits, np.arange(4))
    some = Sampler(config, 4).draw(logits[[1, 3]], np.array([1, 3]))
    assert some.tolist() == whole[[1, 3]].tolist()


def test_seeds() -> None:
    model, rows = ours("gpt2"), rows_of((4, 6))
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.5, "num_return_sequences": 3}
    first, again = (model.generate(rows, seed=1, **settings).sequences for _ in range(2))
    assert first == again and len(first) == 6 and len(set(first)) == 6
    assert model.generate(rows, seed=2, **settings).sequences != first
    assert model.generate(rows, **settings).sequences != model.generate(rows, **settings).sequences
    greedy = model.generate(rows, max_new_tokens=12).sequences
    assert model.generate(rows, max_new_tokens=12, top_k=1).sequences == greedy


@pytest.mark.parametrize("size", [1, 7, 255, 256, 1024, 5000])
@pytest.mark.parametrize("count", [1, 4, 8])
def test_the_best_of_beams(size: int, count: int) -> None:
    """Of equals the first, also where they are more than are asked for, and where a token is forced."""
    rng = np.random.default_rng(size)
    scores = np.array([-3, 0, -1e9], np.float32)
    forced = partial(_force, token=size // 2)
    for logits, steps in ((rng.normal(size=(3, size)).round(1), []), (np.zeros((3, size)), []), (None, [forced])):
        rows = np.zeros((3, size), np.float32) if logits is None else logits.astype(np.float32)
        expected = torch.from_numpy(rows).log_softmax(-1).numpy()
        for step in steps:
            step(expected, [], 0)
        totals = (expected + scores[:, None]).ravel()
        order = np.argsort(-totals, kind="stable")[:count]
        found = of_logits(rows, scores, count, steps, [np.zeros(1, np.int64)] * 3, 0)
        np.testing.assert_allclose(found.totals, totals[order], rtol=1e-6)
        np.testing.assert_array_equal(found.beams * size + found.tokens, order)


def _force(rows: Any, texts: Any, number: int, token: int) -> None:
    rows[:] = -np.inf
    rows[:, token] = 0
