"""Running models on arrays: what fits, what does not, and what the error says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxsmith
from onnxsmith.errors import BadInput
from onnxsmith.runtime.model import LoadedModel, load
from tests.embedder import WIDTH, embedder_model, write_embedder

IDS = np.array([[2, 4, 3]], np.int64)
MASK = np.ones_like(IDS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(write_embedder(tmp_path_factory.mktemp("model") / "a"))


def test_what_the_model_says_of_itself(model: LoadedModel) -> None:
    assert [str(info) for info in model.inputs] == [
        "input_ids int64[batch, sequence]",
        "attention_mask int64[batch, sequence]",
    ]
    assert [info.name for info in model.outputs] == ["hidden", "embeddings"]
    assert model.manifest["task"] == "embed"


def test_run_gives_outputs_by_name(model: LoadedModel) -> None:
    outputs = model.run({"attention_mask": MASK, "input_ids": IDS})
    assert {name: array.shape for name, array in outputs.items()} == {
        "hidden": (1, 3, WIDTH),
        "embeddings": (1, WIDTH),
    }
    again = onnxsmith.run(model.artifact.folder, {"input_ids": IDS, "attention_mask": MASK})
    np.testing.assert_array_equal(outputs["embeddings"], again["embeddings"])


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        (
            {"input_ids": IDS},
            r"missing input attention_mask; the model takes input_ids int64\[batch, sequence\],",
        ),
        ({"input_ids": IDS, "attention_mask": MASK, "x": IDS}, "unknown input x; the model takes"),
        ({"input_ids": IDS.astype(np.int32), "attention_mask": MASK}, "expected dtype int64, found int32"),
        ({"input_ids": IDS[0], "attention_mask": MASK}, r"expected 2 axes .*, found shape \(3,\)"),
        (
            {"input_ids": IDS, "attention_mask": MASK[:, :2]},
            "expected sequence of 3 as in another input, found 2",
        ),
        (
            {"input_ids": np.ones((1, 17), np.int64), "attention_mask": MASK},
            "sequence of at most 16, found 17",
        ),
        ({"input_ids": IDS + 90, "attention_mask": MASK}, "ONNX Runtime fails on these inputs"),
    ],
)
def test_inputs_that_do_not_fit(model: LoadedModel, feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        model.run(feeds)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("id", [-1, 13])
def test_ids_beyond_the_vocabulary(tmp_path: Path, id: int) -> None:
    model = load(write_embedder(tmp_path / "a", vocab_size=13))
    model.run({"input_ids": np.array([[0, 12]], np.int64), "attention_mask": MASK[:, :2]})
    with pytest.raises(BadInput, match=f"input input_ids: expected token ids from 0 to 12, found {id}"):
        model.run({"input_ids": np.array([[0, id]], np.int64), "attention_mask": MASK[:, :2]})


def test_fixed_sizes_hold(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "a", embedder_model(rename={"sequence] input_ids": "3] input_ids"}))
    with pytest.raises(BadInput, match="input input_ids: axis 1: expected size 3, found 2"):
        load(folder).run({"input_ids": IDS[:, :2], "attention_mask": MASK[:, :2]})


def test_bounds_go_by_the_manifests_names(tmp_path: Path) -> None:
    model = embedder_model(rename={"sequence]": "s12]"})
    inputs = [{"name": name, "dims": ["batch", "sequence"]} for name in ("input_ids", "attention_mask")]
    loaded = load(write_embedder(tmp_path / "a", model, inputs=inputs))
    with pytest.raises(BadInput, match="sequence of at most 16, found 17"):
        loaded.run({"input_ids": np.ones((1, 17), np.int64), "attention_mask": np.ones((1, 17), np.int64)})


def test_recorded_options_reach_the_session(tmp_path: Path) -> None:
    option = {"optimization.disable_specified_optimizers": "GeluFusion"}
    loaded = load(write_embedder(tmp_path / "a", session={"config": option}), config={"session.foo": "1"})
    options = loaded.session.get_session_options()
    assert loaded.config == option
    assert options.get_session_config_entry("optimization.disable_specified_optimizers") == "GeluFusion"
    assert options.get_session_config_entry("session.foo") == "1"
