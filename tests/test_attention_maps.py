"""Attention weights as outputs and as pictures, beside transformers' ``output_attentions`` of the same weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler.attention_weights import showing_attention, with_attention_weights
from onnxsmith.compiler.load import load_model
from onnxsmith.errors import BadInput
from onnxsmith.runtime.model import LoadedModel
from onnxsmith.runtime.tasks.attention import AttentionMap
from tests import generation, toy
from tests.command import Invoke, assert_refused
from tests.texts import word_piece
from tests.tiny import write_mlp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog."
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
NEW_TOKENS = 5


def _saved(folder: Path, make: Callable[[int], Any]) -> tuple[Path, Any]:
    """A model for the tokenizer's vocabulary, with weights so large that no attention is uniform."""
    word_piece(folder)
    model = make(len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines()))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    model.save_pretrained(folder)
    return folder, model.eval()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    def make(vocabulary: int) -> Any:
        config = transformers.BertConfig(**BERT, vocab_size=vocabulary, attn_implementation="eager")
        return transformers.BertModel(config, add_pooling_layer=False)

    return _saved(tmp_path_factory.mktemp("bert") / "checkpoint", make)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    def make(vocabulary: int) -> Any:
        config = transformers.T5Config(**T5, vocab_size=vocabulary, attn_implementation="eager")
        return transformers.T5ForConditionalGeneration(config)

    return _saved(tmp_path_factory.mktemp("t5") / "checkpoint", make)


@pytest.fixture(scope="module")
def bert_variant(bert: tuple[Path, Any]) -> LoadedModel:
    return _exported("bert", bert[0], attention_weights=True)


@pytest.fixture(scope="module")
def t5_variant(t5: tuple[Path, Any]) -> LoadedModel:
    return _exported("t5", t5[0], attention_weights=True)


def _exported(source: str, checkpoint: Path, **options: Any) -> LoadedModel:
    output = checkpoint.parent / f"ours-{len(options)}"
    return onnxsmith.load(onnxsmith.export(source, output, checkpoint=checkpoint, exporter="torchscript", **options))


def _ids(checkpoint: Path) -> Any:
    return transformers.BertTokenizerFast(str(checkpoint / "vocab.txt"))(TEXT, return_tensors="pt")


def _same(found: AttentionMap, theirs: Any) -> None:
    """Every layer and head, to float32's rounding."""
    reference = np.stack([layer[0].detach().numpy() for layer in theirs])
    assert found.weights.shape == reference.shape == (2, 4, len(found.queries), len(found.keys))
    np.testing.assert_allclose(found.weights, reference, rtol=1e-4, atol=1e-6)


class TestWeights:
    def test_of_an_encoder_are_the_references(self, bert: tuple[Path, Any], bert_variant: LoadedModel) -> None:
        folder, model = bert
        feeds = _ids(folder)
        (found,) = bert_variant.attention_maps(TEXT)
        _same(found, model(**feeds, output_attentions=True).attentions)
        assert found.kind == "attentions"
        assert found.queries == found.keys
        assert found.queries[0] == "[CLS]" and len(found.queries) == feeds.input_ids.shape[1]

    def test_of_an_encoder_decoder_are_the_references(self, t5: tuple[Path, Any], t5_variant: LoadedModel) -> None:
        folder, model = t5
        ids = _ids(folder).input_ids
        generated = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)
        theirs = model(input_ids=ids, decoder_input_ids=generated[:, :-1], output_attentions=True)
        found = {one.kind: one for one in t5_variant.attention_maps(TEXT, max_new_tokens=NEW_TOKENS)}
        assert list(found) == ["encoder_attentions", "decoder_attentions", "cross_attentions"]
        for kind, one in found.items():
            _same(one, theirs[kind])

    def test_rows_sum_to_one_and_nothing_sees_what_comes(self, t5_variant: LoadedModel) -> None:
        maps = t5_variant.attention_maps(TEXT, max_new_tokens=NEW_TOKENS, eos_token_id=())
        found = {one.kind: one.weights for one in maps}
        for weights in found.values():
            np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        later = np.triu(np.ones((NEW_TOKENS, NEW_TOKENS), bool), 1)
        assert not found["decoder_attentions"][..., later].any()
        assert found["encoder_attentions"][..., 0, 1:].all()  # an encoder does see it

    def test_the_manifest_names_them(self, t5_variant: LoadedModel) -> None:
        sides = ["batch", 4, "decoder_sequence", "sequence"]
        entry = {"name": "cross_attentions.1", "dtype": "float32", "dims": sides}
        assert entry in t5_variant.manifest["outputs"]

    def test_the_other_outputs_stay(self, bert: tuple[Path, Any], bert_variant: LoadedModel) -> None:
        feeds = {name: value.numpy() for name, value in _ids(bert[0]).items()}
        raw, found = _exported("bert", bert[0]).run(feeds), bert_variant.run(feeds)
        np.testing.assert_allclose(found["last_hidden_state"], raw["last_hidden_state"], rtol=1e-4, atol=1e-5)

    def test_of_any_export_and_of_what_was_optimized(
        self, bert: tuple[Path, Any], bert_variant: LoadedModel, tmp_path: Path
    ) -> None:
        (variant,) = bert_variant.attention_maps(TEXT)
        raw = _exported("bert", bert[0])
        onnxsmith.optimize(raw.artifact.model.parent, tmp_path / "fast", verify="off")
        for model in (raw, onnxsmith.load(tmp_path / "fast")):
            (found,) = showing_attention(model).attention_maps(TEXT)
            np.testing.assert_allclose(found.weights, variant.weights, rtol=1e-4, atol=1e-6)


class TestRefusals:
    def test_outputs_without_weights(self, bert: tuple[Path, Any]) -> None:
        with pytest.raises(BadInput, match="--attention-weights"):
            _exported("bert", bert[0]).attention_maps(TEXT)

    def test_a_model_with_a_cache(self) -> None:
        with pytest.raises(BadInput, match="cache.*as it was exported"):
            showing_attention(generation.ours("gpt2"))

    def test_no_attention(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="no attention was found"):
            with_attention_weights(load_model(write_mlp(tmp_path / "mlp.onnx")))

    def test_attention_that_is_not_recognised(self) -> None:
        model = toy.encoder()
        (softmax,) = [node for node in model.graph if node.op_type == "Softmax"]
        softmax.attributes["axis"] = ir.AttrInt64("axis", 2)  # over the queries: no attention
        with pytest.raises(BadInput, match="not recognised"):
            with_attention_weights(model)

    def test_fused_kernels(self, bert: tuple[Path, Any], tmp_path: Path) -> None:
        raw = _exported("bert", bert[0]).artifact.model
        onnxsmith.optimize(raw, tmp_path / "fused.onnx", target="cuda", verify="off")
        with pytest.raises(BadInput, match="2 of 2 attentions are fused kernels"):
            with_attention_weights(load_model(tmp_path / "fused.onnx"))


class TestPicture:
    def test_is_drawn(self, invoke: Invoke, bert_variant: LoadedModel, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        picture = tmp_path / "map.png"
        result = invoke("run", bert_variant.artifact.folder, "--text", TEXT, "--attention", picture)
        assert (result.code, result.out) == (0, ""), result.err
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert list(tmp_path.iterdir()) == [picture]

    def test_has_a_panel_for_each_head_with_its_tokens(self) -> None:
        pytest.importorskip("matplotlib")
        from onnxsmith.cli.attention import draw

        source, target = ("a", "$b$"), ("<s>", "c$", "d")  # dollars are no mathematics
        maps = [
            AttentionMap("encoder_attentions", np.full((1, 2, 2, 2), 0.5, np.float32), source, source),
            AttentionMap("cross_attentions", np.full((2, 3, 3, 2), 0.5, np.float32), target, source),
        ]
        figure = draw(maps)
        panels = [axes for axes in figure.axes if axes.images]
        assert len(panels) == 2 + 2 * 3
        assert [label.get_text() for label in panels[0].get_yticklabels()] == list(source)
        assert [label.get_text() for label in panels[2].get_yticklabels()] == list(target)
        assert [label.get_text() for label in panels[-1].get_xticklabels()] == list(source)
        figure.canvas.draw()

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (("--text", TEXT, "--text", TEXT), "one --text, found 2"),
            ((), "one --text, found 0"),
            (("--text", TEXT, "--json"), "nothing else"),
            (("--classify", TEXT), "nothing else"),
        ],
    )
    def test_other_requests(self, invoke: Invoke, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
        result = invoke("run", tmp_path, *options, "--attention", tmp_path / "map.png")
        assert result.code == 2 and told in result.err

    def test_another_format(self, invoke: Invoke, tmp_path: Path) -> None:
        result = invoke("run", tmp_path, "--text", TEXT, "--attention", tmp_path / "map.txt")
        assert result.code == 2 and ".png, .svg, .pdf" in result.err

    def test_without_matplotlib(self, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        result = invoke("run", tmp_path, "--text", TEXT, "--attention", tmp_path / "map.png")
        assert_refused(result, "pip install 'onnxsmith[report]'")
        assert not list(tmp_path.iterdir())
