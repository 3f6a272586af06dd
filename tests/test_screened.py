"""The greedy token by bounds: it is the best wherever it is called sure, and the whole head tells it elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import transformers

import onnxsmith
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.reads import step_bytes
from onnxsmith.compiler.session import run_model
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.lower import candidates, greedy
from onnxsmith.passes.lower.screen import CANDIDATES, screened
from onnxsmith.runtime.embed import RunFeeds
from tests.generation import EOS, rows_of, varied
from tests.spoiling import check_seen
from tests.test_decoder_parity import GPT2

VOCABULARY = 1024  # a table of which the transpose is not folded
RNG = np.random.default_rng(0)
TABLES = {
    "even": RNG.normal(size=(5000, 64)),
    "outlying channels": RNG.normal(size=(5000, 64)) * np.where(np.arange(64) % 16, 1, 40),
    "rows of all sizes": RNG.normal(size=(5000, 64)) * RNG.lognormal(0, 2, size=(5000, 1)),
    "some rows are zero": RNG.normal(size=(5000, 64)) * (RNG.random((5000, 1)) < 0.5),
    "most rows are nearly the same": np.ones((5000, 64)) + 1e-4 * RNG.normal(size=(5000, 64)),
}


def screening(rows: np.ndarray, bias: np.ndarray | None = None) -> RunFeeds:
    """A model that is the screening alone: ``h`` [B, 1, D] -> ``token``, ``sure``."""
    op, h = (
        Builder(),
        ir.Value(name="h", shape=ir.Shape(["B", 1, rows.shape[1]]), type=ir.TensorType(ir.DataType.FLOAT)),
    )
    found = screened(op, h, op.constant(rows, "table"), rows, bias)
    model = ir.Model(ir.Graph([h], [], nodes=[], opset_imports={"": 23, "com.microsoft": 1}), ir_version=10)
    Names(model).adopt(model.graph, op)
    model.graph.extend(op.nodes)
    for v, name, kind in zip(found, ("token", "sure"), (ir.DataType.INT64, ir.DataType.BOOL), strict=True):
        v.name, v.type = name, ir.TensorType(kind)
        model.graph.outputs.append(v)
    return run_model(model)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_a_sure_token_is_the_best(name: str, biased: bool) -> None:
    rows = TABLES[name].astype(np.float32)
    bias = RNG.normal(size=len(rows)).astype(np.float32) if biased else None
    run, sure = screening(rows, bias), []
    for _ in range(40):
        h = (RNG.normal(size=(1, 1, 64)) * RNG.lognormal(0, 1, size=64)).astype(np.float32)
        found = run({"h": h})
        exact = rows.astype(np.float64) @ h[0, 0].astype(np.float64) + (0 if bias is None else bias)
        sure.append(bool(found["sure"]))
        assert not sure[-1] or found["token"].item() == exact.argmax()
    assert any(sure) != (name == "most rows are nearly the same" and not biased)


def test_every_row_of_a_batch_has_its_own_token_and_all_must_be_sure() -> None:
    rows = TABLES["even"].astype(np.float32)
    h = RNG.normal(size=(6, 1, 64)).astype(np.float32)
    found = screening(rows)({"h": h})
    assert found["sure"] and found["token"][:, 0].tolist() == (h[:, 0] @ rows.T).argmax(1).tolist()
    h[3] = 0  # every token is as good as any
    assert not screening(rows)({"h": h})["sure"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_not_sure(wrong: float) -> None:
    h = np.full((1, 1, 64), wrong, np.float32)
    assert not screening(TABLES["even"].astype(np.float32))({"h": h})["sure"]


def test_more_equals_than_candidates_are_not_sure() -> None:
    rows = TABLES["even"].astype(np.float32)
    rows[100 : 100 + CANDIDATES + 1] = rows[100] * 9
    assert not screening(rows)({"h": rows[None, None, 100]})["sure"]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GPT-2 with the head as it was, and with one that is screened; the whole model is verified either way."""
    made, config = (
        tmp_path_factory.mktemp("screened"),
        transformers.GPT2Config(**GPT2 | {"vocab_size": VOCABULARY, "eos_token_id": EOS}),
    )
    varied(transformers.GPT2LMHeadModel(config)).save_pretrained(made / "checkpoint")
    onnxsmith.export("gpt", made / "plain", checkpoint=made / "checkpoint", exporter="torchscript")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "LEAST", 1)
        onnxsmith.optimize(made / "plain", made / "whole", cache=True)
        patch.setattr(greedy, "_LEAST", 1)
        report = onnxsmith.optimize(made / "plain", made / "screened", cache=True)
    assert [remark.rule for remark in report.remarks].count(greedy.NAME) == 1
    return made / "whole", made / "screened"


SETTINGS = [{}, {"forced_eos_token_id": EOS}, {"num_beams": 3}, {"temperature": 0.9, "seed": 1}, {"min_new_tokens": 5}]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings), "greedy"))
def test_texts_are_those_of_the_whole_head(both: tuple[Path, Path], settings: dict[str, Any]) -> None:
    whole, screened = (onnxsmith.load(folder, threads=1) for folder in both)
    rows = rows_of((9, 5, 1, 7))
    texts = [m.generate(rows, max_new_tokens=12, **settings).sequences for m in (whole, screened)]
    assert texts[0] == texts[1]


def test_only_the_question_for_the_token_spares_the_logits(both: tuple[Path, Path]) -> None:
    session = onnxsmith.load(both[1], threads=1).session
    shapes = {"input_ids": (2, 3), "attention_mask": (2, 3), "position_ids": (2, 3)}
    feeds: dict[str, Any] = {name: np.ones(shape, np.int64) for name, shape in shapes.items()}
    for info in session.get_inputs():
        if info.name not in feeds:
            feeds[info.name] = np.zeros((2, info.shape[1], 0, info.shape[3]), np.float32)
    assert "greedy" not in [info.name for info in session.get_inputs()], "who does not know of it need not give it"
    logits, token = session.run(["logits", "next_token"], feeds)
    none, same = session.run(["logits", "next_token"], feeds | {"greedy": np.array(True)})
    assert logits.shape[:2] == (2, 1) and none.shape == (0, *logits.shape[1:])
    assert token.tolist() == same.tolist() == logits.argmax(-1).tolist()
    ranks = ["candidate_tokens", "candidate_scores"]
    assert [x.shape for x in session.run(ranks, feeds | {"greedy": np.array(True)})] == [(0, 1, 0)] * 2
    assert (
        session.run(ranks, feeds | {"candidates": np.array([2])})[0][..., :1].tolist()
        == logits.argmax(-1, keepdims=True).tolist()
    )


def test_verification_sees_a_wrong_token(both: tuple[Path, Path]) -> None:
    model = load_model(both[1] / "model.onnx")
    check_seen(
        model, lambda feeds, found: {**found, "next_token": found["next_token"] ^ 1} if "greedy" in feeds else found
    )


def test_a_step_reads_the_table_or_its_codes(both: tuple[Path, Path]) -> None:
    whole, model = (load_model(folder / "model.onnx") for folder in both)
    cache = recorded(model)
    assert cache is not None and cache.greedy == "greedy"
    table = 4 * VOCABULARY * GPT2["n_embd"]
    assert step_bytes(model) <= step_bytes(whole) + 64  # of small constants
    assert step_bytes(model, greedy=True) < step_bytes(whole) - 0.6 * table  # codes, scales and two norms
