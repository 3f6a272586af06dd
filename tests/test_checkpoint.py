"""Reading Hugging Face folders: what is loaded, and that every bad one is refused by a line that says why."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import Checkpoint, load_checkpoint
from tests.checkpoints import MEAN, STEPS, without, write_checkpoint, write_json
from tests.tiny import CONFIG, bert_tensors

LAYER = "encoder.layer.1.output.dense"


def refused(folder: Path, *mentions: str) -> None:
    with pytest.raises(BadInput) as error:
        load_checkpoint(folder)
    message = str(error.value)
    assert "\n" not in message
    for mention in mentions:
        assert mention in message


class TestConfig:
    def test_no_folder(self, tmp_path: Path) -> None:
        refused(tmp_path / "nowhere", "nowhere", "config.json")

    def test_a_file_for_a_folder(self, tmp_path: Path) -> None:
        file = tmp_path / "model.safetensors"
        file.touch()
        refused(file, "model.safetensors", "give a folder")

    def test_no_config(self, tmp_path: Path) -> None:
        refused(tmp_path, "config.json")

    @pytest.mark.parametrize("text", ["", "{", '{"a": 1}}', "\xff\xfe", "[" * 100_000, "[]", "7"])
    def test_broken_config(self, tmp_path: Path, text: str) -> None:
        write_checkpoint(tmp_path / "c")
        (tmp_path / "c" / "config.json").write_bytes(text.encode("latin-1"))
        refused(tmp_path / "c", "config.json", "JSON")

    @pytest.mark.parametrize("kind", ["xlnet", None, ["bert"]])
    def test_another_architecture(self, tmp_path: Path, kind: object) -> None:
        refused(write_checkpoint(tmp_path / "c", config={"model_type": kind}), repr(kind), "'bert'")

    @pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "num_attention_heads", "type_vocab_size"])
    def test_missing_key(self, tmp_path: Path, key: str) -> None:
        write_json(write_checkpoint(tmp_path / "c") / "config.json", without(key))
        refused(tmp_path / "c", "config.json", key)

    @pytest.mark.parametrize(
        ("key", "value", "mention"),
        [
            ("num_attention_heads", 3, "32 does not divide into 3 heads"),
            ("num_attention_heads", 0, "positive integer"),
            ("num_hidden_layers", "2", "positive integer"),
            ("vocab_size", True, "positive integer"),
            ("hidden_act", "swishish", "one of gelu"),
            ("hidden_act", ["gelu"], "one of gelu"),
            ("layer_norm_eps", "1e-12", "positive number"),
            ("layer_norm_eps", 0, "positive number"),
            ("position_embedding_type", "relative_key", "'absolute'"),
        ],
    )
    def test_bad_value(self, tmp_path: Path, key: str, value: object, mention: str) -> None:
        refused(write_checkpoint(tmp_path / "c", config={key: value}), str(value), mention)

    def test_optional_keys_have_berts_defaults(self, tmp_path: Path) -> None:
        write_json(write_checkpoint(tmp_path / "c") / "config.json", without("hidden_act", "layer_norm_eps"))
        module = load_checkpoint(tmp_path / "c").module
        assert module.config.layer_norm_eps == 1e-12
        assert module.config.hidden_act == "gelu"


class TestWeights:
    def change(self, folder: Path, **tensors: np.ndarray | None) -> Path:
        """A checkpoint with some tensors replaced or, where None, left out."""
        changed = {name: value for name, value in (bert_tensors() | tensors).items() if value is not None}
        return write_checkpoint(folder, tensors=changed)

    def test_missing_tensor(self, tmp_path: Path) -> None:
        refused(self.change(tmp_path / "c", **{f"{LAYER}.bias": None}), "layers.1.feed_forward.down.bias")

    def test_unknown_tensor(self, tmp_path: Path) -> None:
        refused(self.change(tmp_path / "c", **{f"{LAYER}.scale": np.ones(1)}), f"{LAYER}.scale")

    def test_a_layer_too_many(self, tmp_path: Path) -> None:
        extra = {name.replace(".1.", ".2."): value for name, value in bert_tensors().items() if ".1." in name}
        refused(self.change(tmp_path / "c", **extra), "16 tensors too many", "encoder.layer.2")

    def test_the_same_tensor_twice(self, tmp_path: Path) -> None:
        refused(self.change(tmp_path / "c", **{f"bert.{LAYER}.bias": np.ones(32)}), f"bert.{LAYER}.bias")

    def test_misshapen_tensor(self, tmp_path: Path) -> None:
        wrong = {f"{LAYER}.weight": np.ones((64, 32), np.float32)}
        refused(self.change(tmp_path / "c", **wrong), f"{LAYER}.weight", "[64, 32]", "[32, 64]")

    @pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
    def test_truncated(self, tmp_path: Path, keep: int) -> None:
        path = write_checkpoint(tmp_path / "c") / "model.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        refused(tmp_path / "c", "model.safetensors", "damaged")

    def test_none_at_all(self, tmp_path: Path) -> None:
        (write_checkpoint(tmp_path / "c") / "model.safetensors").unlink()
        refused(tmp_path / "c", "no model.safetensors")

    def test_a_pickle_is_not_opened(self, tmp_path: Path) -> None:
        folder = write_checkpoint(tmp_path / "c")
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
        refused(folder, "pytorch_model.bin is a pickle", "safetensors")
        assert not (tmp_path / "sprung").exists()

    def test_names_with_the_models_prefix(self, tmp_path: Path) -> None:
        prefixed = {f"bert.{name}": value for name, value in bert_tensors().items()}
        prefixed["cls.predictions.bias"] = np.ones(128, np.float32)
        plain, other = write_checkpoint(tmp_path / "a"), write_checkpoint(tmp_path / "b", tensors=prefixed)
        assert equal(load_checkpoint(plain), load_checkpoint(other))

    def test_the_pooler_may_be_missing(self, tmp_path: Path) -> None:
        plain = write_checkpoint(tmp_path / "a")
        other = self.change(tmp_path / "b", **{f"pooler.dense.{kind}": None for kind in ("weight", "bias")})
        assert equal(load_checkpoint(plain), load_checkpoint(other))

    def test_half_precision_is_widened(self, tmp_path: Path) -> None:
        halves = {name: value.astype(np.float16) for name, value in bert_tensors().items()}
        state = load_checkpoint(write_checkpoint(tmp_path / "c", tensors=halves)).module.state_dict()
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
        expected = halves["embeddings.LayerNorm.bias"].astype(np.float32)
        assert np.array_equal(state["embeddings.norm.bias"].numpy(), expected)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_weights_stay_on_disk(self, tmp_path: Path) -> None:
        """64 MB of weights cost the process no memory of its own, beyond what a tiny checkpoint does."""
        rows = 500_000
        table = {"embeddings.word_embeddings.weight": np.ones((rows, CONFIG["hidden_size"]), np.float32)}
        small = write_checkpoint(tmp_path / "a")
        large = write_checkpoint(tmp_path / "b", config={"vocab_size": rows}, tensors=bert_tensors() | table)
        assert grown(small, large) < 8


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def equal(a: Checkpoint, b: Checkpoint) -> bool:
    left, right = a.module.state_dict(), b.module.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def grown(first: Path, second: Path) -> float:
    """By how many MB of its own an interpreter that has loaded one checkpoint grows with another."""
    code = (
        "import re, sys; from pathlib import Path; from onnxsmith.models.checkpoint import load_checkpoint\n"
        "own = lambda: int(re.search(r'RssAnon:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "first = load_checkpoint(sys.argv[1]); before = own()\n"
        "second = load_checkpoint(sys.argv[2]); print((own() - before) / 1024)"
    )
    command = [sys.executable, "-c", code, str(first), str(second)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


class TestSentenceTransformers:
    def test_without_pooling_there_are_hidden_states(self, tmp_path: Path) -> None:
        found = load_checkpoint(write_checkpoint(tmp_path / "c"))
        assert found.task.name == "features"
        assert [spec.name for spec in found.task.outputs] == ["last_hidden_state"]
        assert found.text is not None and found.max_length == 64
        assert found.text.tokenizer == (tmp_path / "c" / "tokenizer.json").read_text(encoding="utf-8")
        assert not found.module.training

    @pytest.mark.parametrize("steps", [STEPS, STEPS[:2]])
    def test_pooling(self, tmp_path: Path, steps: tuple[str, ...]) -> None:
        found = load_checkpoint(write_checkpoint(tmp_path / "c", pooling=MEAN, steps=steps))
        assert found.task.name == "embed"
        ids = torch.arange(10).reshape(2, 5)
        hidden, embedding = found.module(ids, torch.ones_like(ids), torch.zeros_like(ids))
        mean = hidden.mean(1)
        expected = mean / mean.norm(dim=1, keepdim=True) if steps == STEPS else mean
        torch.testing.assert_close(embedding, expected)

    @pytest.mark.parametrize(
        "pooling", [{"pooling_mode_cls_token": True}, MEAN | {"pooling_mode_max_tokens": True}, {}]
    )
    def test_another_pooling(self, tmp_path: Path, pooling: dict[str, bool]) -> None:
        folder = write_checkpoint(tmp_path / "c", pooling=pooling)
        refused(folder, "1_Pooling/config.json", str([name for name, on in pooling.items() if on]), "mean")

    @pytest.mark.parametrize("steps", [("Transformer",), (*STEPS[:2], "Dense"), ("Pooling", "Transformer")])
    def test_other_steps(self, tmp_path: Path, steps: tuple[str, ...]) -> None:
        refused(write_checkpoint(tmp_path / "c", pooling=MEAN, steps=steps), "modules.json", steps[-1])

    @pytest.mark.parametrize("modules", [{}, [1, 2], [{"path": ""}]])
    def test_malformed_steps(self, tmp_path: Path, modules: object) -> None:
        write_json(write_checkpoint(tmp_path / "c", pooling=MEAN) / "modules.json", modules)
        refused(tmp_path / "c", "modules.json")

    def test_no_pooling_config(self, tmp_path: Path) -> None:
        (write_checkpoint(tmp_path / "c", pooling=MEAN) / "1_Pooling" / "config.json").unlink()
        refused(tmp_path / "c", "1_Pooling")

    @pytest.mark.parametrize(("limit", "expected"), [(16, 16), (1000, 64), (None, 64)])
    def test_length_limit(self, tmp_path: Path, limit: int | None, expected: int) -> None:
        write_json(write_checkpoint(tmp_path / "c") / "sentence_bert_config.json", {"max_seq_length": limit})
        assert load_checkpoint(tmp_path / "c").max_length == expected

    @pytest.mark.parametrize("limit", ["16", -1, 1.5])
    def test_bad_length_limit(self, tmp_path: Path, limit: object) -> None:
        write_json(write_checkpoint(tmp_path / "c") / "sentence_bert_config.json", {"max_seq_length": limit})
        refused(tmp_path / "c", "sentence_bert_config.json", repr(limit))


class TestShards:
    """Hugging Face splits large models; an index says which tensor is in which file."""

    def write(self, folder: Path, **changes: Any) -> Path:
        write_checkpoint(folder)
        (folder / "model.safetensors").unlink()
        names = sorted(bert_tensors())
        files = {name: f"model-{1 + i % 2}-of-2.safetensors" for i, name in enumerate(names)}
        for file in sorted(set(files.values())):
            save_file({n: bert_tensors()[n] for n in names if files[n] == file}, folder / file)
        write_json(folder / "model.safetensors.index.json", {"weight_map": files} | changes)
        return folder

    def test_together_they_are_the_whole(self, tmp_path: Path) -> None:
        whole, parts = write_checkpoint(tmp_path / "a"), self.write(tmp_path / "b")
        found = load_checkpoint(parts)
        assert equal(load_checkpoint(whole), found)
        assert [path.name for path in found.weights] == ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]

    def test_missing_shard(self, tmp_path: Path) -> None:
        (self.write(tmp_path / "c") / "model-2-of-2.safetensors").unlink()
        refused(tmp_path / "c", "1 missing shards", "model-2-of-2.safetensors")

    def test_truncated_shard(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "c") / "model-2-of-2.safetensors"
        path.write_bytes(path.read_bytes()[:-4])
        refused(tmp_path / "c", "model-2-of-2.safetensors is damaged")

    def test_repeated_tensor(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "c") / "model-2-of-2.safetensors"
        save_file(bert_tensors(), path)
        refused(tmp_path / "c", "repeats tensor", "model-2-of-2.safetensors")

    @pytest.mark.parametrize("names", [None, [], {"a": 1}, {"a": "../x.safetensors"}, {"a": "/etc/passwd"}, {}])
    def test_bad_index(self, tmp_path: Path, names: object) -> None:
        refused(self.write(tmp_path / "c", weight_map=names), "model.safetensors.index.json")


class TestPickles:
    """They are read only when the user says so, and then for tensors alone."""

    def write(self, folder: Path, value: object) -> Path:
        (write_checkpoint(folder) / "model.safetensors").unlink()
        torch.save(value, folder / "pytorch_model.bin")
        return folder

    def test_tensors(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path / "b", {name: torch.from_numpy(x) for name, x in bert_tensors().items()})
        refused(folder, "--allow-pickle")
        found = load_checkpoint(folder, allow_pickle=True)
        assert equal(load_checkpoint(write_checkpoint(tmp_path / "a")), found)

    @pytest.mark.parametrize("value", [7, {"a": 1}, [torch.ones(1)]])
    def test_no_table_of_tensors(self, tmp_path: Path, value: object) -> None:
        with pytest.raises(BadInput, match="no table of tensors"):
            load_checkpoint(self.write(tmp_path / "c", value), allow_pickle=True)

    def test_code_is_not_run(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path / "c", {"a": Trap(str(tmp_path / "sprung"))})
        with pytest.raises(BadInput, match=r"pytorch_model\.bin") as error:
            load_checkpoint(folder, allow_pickle=True)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "sprung").exists()

    def test_truncated(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "c", {"a": torch.ones(1000)}) / "pytorch_model.bin"
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(BadInput, match="damaged"):
            load_checkpoint(tmp_path / "c", allow_pickle=True)


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds a bert, which 'bert' reads; 'gpt' was asked for"):
        load_checkpoint(write_checkpoint(tmp_path / "c"), architecture="gpt")
