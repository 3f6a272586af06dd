"""Who needs no more reads the tokens that the graph ranks: when, what these are, and that a wrong rank is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxsmith
from onnxsmith.compiler.load import load_model
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.lower import candidates
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.loop import chooser
from onnxsmith.runtime.generation.ranked import Ranked
from onnxsmith.runtime.generation.rows import Row
from onnxsmith.runtime.parity import log_softmax
from tests.generation import EOS, compiled, plain, rows_of
from tests.spoiling import check_seen

GREEDY = {"max_new_tokens": 8}
BEAMS = GREEDY | {"num_beams": 3}
DRAWN = GREEDY | {"do_sample": True, "top_k": 5, "temperature": 2.0, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 whose head ranks tokens, which the compiler verifies."""
    made = tmp_path_factory.mktemp("ranked") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "LEAST", 1)
        report = onnxsmith.optimize(plain("gpt2"), made, cache=True)
    assert report.parity is not None and report.parity.fine
    assert candidates.NAME in {remark.rule for remark in report.remarks}
    return made


def feeds(folder: Path) -> dict[str, Any]:
    ids = np.array(rows_of((7, 7)))
    found: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    found["position_ids"] = found["attention_mask"].cumsum(1) - 1
    for info in onnxsmith.load(folder, threads=1).session.get_inputs():
        if info.name not in found:
            found[info.name] = np.zeros((2, info.shape[1], 0, info.shape[3]), np.float32)
    return found


def test_as_many_as_are_asked_for(folder: Path) -> None:
    session, given = onnxsmith.load(folder, threads=1).session, feeds(folder)
    names = ["logits", "next_token", "candidate_scores", "candidate_tokens"]
    assert "candidates" not in [info.name for info in session.get_inputs()], "who does not know of it need not give it"
    logits, token, *nothing = session.run(names, given)
    assert [none.size for none in nothing] == [0, 0] and token.tolist() == logits.argmax(-1).tolist()
    expected = log_softmax(logits)
    for count in (1, 5):
        same, token, scores, tokens = session.run(names, given | {"candidates": np.array([count])})
        np.testing.assert_array_equal(same, logits)
        assert token.tolist() == logits.argmax(-1).tolist()
        assert tokens.tolist() == np.argsort(-expected, axis=-1)[..., :count].tolist()
        np.testing.assert_allclose(scores, np.take_along_axis(expected, tokens, -1), rtol=1e-5)


@pytest.mark.parametrize("wrong", ["scores", "tokens"])
def test_verification_sees_a_wrong_rank(folder: Path, wrong: str) -> None:
    model = load_model(folder / "model.onnx")
    cache = recorded(model)
    assert cache is not None and cache.best is not None
    name = getattr(cache.best, wrong)
    check_seen(model, lambda _, found: {**found, name: np.roll(found[name], 1, axis=-1)})


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (BEAMS | {"eos_token_id": []}, {6}),
        (BEAMS | {"eos_token_id": [EOS, 7]}, {9}),
        (BEAMS | {"eos_token_id": [], "suppress_tokens": [7, 30]}, {8}),
        (BEAMS | {"eos_token_id": [], "no_repeat_ngram_size": 1}, {6 + n for n in range(2, 9)}),
        (BEAMS | {"eos_token_id": EOS, "forced_eos_token_id": EOS}, {6, 0}),
        (BEAMS | {"eos_token_id": [], "repetition_penalty": 1.5}, {0}),
        (DRAWN | {"eos_token_id": []}, {6}),
        (DRAWN | {"eos_token_id": [], "suppress_tokens": [7, 30]}, {8}),
        (DRAWN | {"eos_token_id": [], "top_p": 0.5, "num_return_sequences": 3}, {6}),
        (DRAWN | {"eos_token_id": [], "top_k": 0}, {0}),
        (DRAWN | {"eos_token_id": [], "repetition_penalty": 1.5}, {0}),
        (GREEDY | {"eos_token_id": []}, {0}),
        (GREEDY | {"eos_token_id": [], "no_repeat_ngram_size": 1}, {1 + n for n in range(2, 9)}),
        (GREEDY | {"eos_token_id": EOS, "min_new_tokens": 3}, {2, 1}),
    ],
    ids=str,
)
def test_what_is_asked_for(settings: dict[str, Any], wanted: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = compiled("t5"), []
    step = Decoder.step

    def watched(decoder: Decoder, tokens: np.ndarray) -> np.ndarray:
        asked.append(decoder.wanted)
        return step(decoder, tokens)

    monkeypatch.setattr(Decoder, "step", watched)
    found = model.generate(rows_of((5, 3)), **settings)
    assert set(asked) <= wanted and max(asked) == max(wanted)
    model.generate(rows_of((5,)), max_new_tokens=2)
    assert asked[-1] == 0, "who picks one token ranks none"
    monkeypatch.setattr(Decoder, "_ranks", lambda *_: None)
    assert model.generate(rows_of((5, 3)), **settings).sequences == found.sequences


def test_of_equal_tokens_no_chance_is_lost() -> None:
    """Two of the best, and the second of them is one of three: the ranked ones are not enough to know of all three."""
    logits = np.array([[0, 3, 2, 2, 2, 1]], np.float32)
    ranked = Ranked(log_softmax(logits)[:, [1, 2, 3]], np.array([[1, 2, 3]]))
    drawn = set()
    for seed in range(40):
        config = GenerationConfig(do_sample=True, top_k=2, seed=seed)
        choose, picks = chooser(config, [Row([7], config, 4, None)], 4)
        assert not picks and choose.wanted(np.zeros(1, int), 1) == 3
        drawn.add(int(choose(logits.copy(), ranked, np.zeros(1, int), 1)[0]))
    assert drawn == {1, 2, 3, 4}
