"""Folders in optimum's layout are one plain model: with a cache they give the library's tokens."""

from __future__ import annotations

import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import onnxsmith
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.source import open_source
from onnxsmith.errors import BadInput
from onnxsmith.runtime.artifact import open_artifact
from tests.exported import write_exported
from tests.generation import EOS, PAD, folders, rows_of, theirs
from tests.test_generation_reference import BEAMS, check

_ROOT = tempfile.TemporaryDirectory(prefix="onnxsmith-exported-")
ENCODER, FIRST, LATER = "encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"
MERGED = "decoder_model_merged.onnx"


def exported(name: str, *, merged: bool = False) -> Path:
    """A folder of that model, made once a run."""
    return _exported(name, merged)


@functools.cache
def _exported(name: str, merged: bool) -> Path:
    return write_exported(theirs(name), Path(_ROOT.name) / f"{name}-{merged}", merged=merged)


def feeds(batch: int = 2, source: int = 5, text: int = 3) -> dict[str, np.ndarray]:
    ids, mask = np.array(rows_of([source] * batch)), np.ones((batch, source), np.int64)
    mask[0, 1:] = 0
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": np.array(rows_of([text] * batch, seed=1))}


@pytest.mark.parametrize("merged", [False, True], ids=["split", "merged"])
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_the_librarys_tokens(name: str, merged: bool, tmp_path: Path) -> None:
    source, fast = exported(name, merged=merged), tmp_path / "fast"
    onnxsmith.optimize(source, fast, cache=True, verify="off")
    cache = json.loads((fast / "decoder" / "onnxsmith.json").read_text())["cache"]
    assert cache["layout"] == "in-place"
    model = onnxsmith.load(fast, threads=1)
    check(name, model)
    check(name, model, **BEAMS)


@pytest.mark.parametrize("merged", [False, True], ids=["split", "merged"])
def test_one_model_of_two_files(merged: bool) -> None:
    """The encoder and the first step run by themselves give what the whole does."""
    folder, given = exported("bart", merged=merged), feeds()
    model = load_model(folder)
    assert [v.name for v in model.graph.inputs] == list(given)
    assert [str(v.shape) for v in model.graph.inputs] == ["[batch,sequence]"] * 2 + ["[batch,decoder_sequence]"]
    assert [v.name for v in model.graph.outputs] == ["logits"]
    assert "If" not in {n.op_type for n in model.graph}
    parts = exported("bart")
    states = run_model(ir.load(parts / ENCODER))(given)["last_hidden_state"]
    of_text = {"encoder_hidden_states": states, "encoder_attention_mask": given["attention_mask"]}
    expected = run_model(ir.load(parts / FIRST))({**of_text, "input_ids": given["decoder_input_ids"]})["logits"]
    np.testing.assert_array_equal(run_model(model)(given)["logits"], expected)


def test_weights_stay_in_their_files() -> None:
    folder = exported("t5", merged=True)
    weights = [v.const_value for v in load_model(folder).graph.initializers.values()]
    large = [w for w in weights if w is not None and w.nbytes > 4096]
    assert large and all(isinstance(w, ir.ExternalTensor) for w in large)
    assert {Path(w.path).name for w in large if isinstance(w, ir.ExternalTensor)} == {ENCODER, MERGED}


def repository(folder: Path) -> Path:
    """The files in onnx/, with the config and a tokenizer beside it, as transformers.js has them."""
    shutil.copytree(exported("bart", merged=True), folder / "onnx")
    for file in ("config.json", "generation_config.json"):
        shutil.move(folder / "onnx" / file, folder / file)
    tokenizer = Tokenizer(models.WordLevel({"<pad>": PAD, "<unk>": 1, "</s>": EOS, "red": 6, "cat": 7}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("inside", ["", "onnx", f"onnx/{MERGED}"], ids=["folder", "onnx", "file"])
def test_settings_and_tokenizer_travel(inside: str, tmp_path: Path) -> None:
    source = repository(tmp_path / "repository")
    found = open_source(source / inside)
    assert (found.model.name, found.manifest["task"]) == (MERGED, "seq2seq")
    assert found.manifest["bounds"] == {"sequence": 32, "decoder_sequence": 32} and found.manifest["max_length"] == 32
    generation = found.manifest["generation"]
    assert (generation["decoder_start_token_id"], generation["eos_token_id"]) == (PAD, EOS)
    assert found.manifest["special_tokens"].items() >= {"pad": PAD, "eos": EOS}.items()
    assert json.loads(found.sidecars()["tokenizer.json"])["model"]["vocab"]["cat"] == 7


def test_texts(tmp_path: Path) -> None:
    fast = tmp_path / "fast"
    onnxsmith.optimize(repository(tmp_path / "repository"), fast, cache=True, verify="off")
    assert set(json.loads((fast / "encoder" / "onnxsmith.json").read_text())["source"]["sha256"]) == {ENCODER, MERGED}
    assert onnxsmith.load(fast, threads=1).generate(["red cat"], max_new_tokens=4).texts


@pytest.mark.slow
def test_checked_in_every_way(tmp_path: Path) -> None:
    source, fast, plain = exported("bart", merged=True), tmp_path / "fast", tmp_path / "plain"
    report = onnxsmith.optimize(source, fast, cache=True)
    assert report.parity is not None and report.parity.fine and report.parity.evidence
    found = onnxsmith.verify(fast, against=source)
    assert found.fine and found.certified and not found.files
    assert onnxsmith.explain(source).counts()["attention"] == {"fused": 6}
    onnxsmith.optimize(source, plain, verify="off")
    (_, column) = onnxsmith.compare([source, plain], pairs=1).variants
    assert column.verdict is not None and column.verdict.word == "equivalent"


def test_int8(tmp_path: Path) -> None:
    samples = feeds(8)
    onnxsmith.optimize(
        exported("bart"), tmp_path / "fast", cache=True, precision="int8", calibrate=samples, verify="off"
    )
    kinds = {node.op_type for node in ir.load(tmp_path / "fast" / "decoder" / "model.onnx").graph}
    assert any("Integer" in kind for kind in kinds), kinds


def parts(folder: Path, *names: str, merged: bool = False) -> Path:
    """Some files of the export."""
    folder.mkdir()
    for name in names:
        shutil.copy(exported("bart", merged=merged) / name, folder)
    return folder


LACKING: dict[str, tuple[list[str], str, str]] = {
    "a merged decoder alone": ([MERGED], "", f"{MERGED} takes encoder_hidden_states, and there is no encoder_model"),
    "its file": ([MERGED], MERGED, "and there is no encoder_model.onnx beside it; put it there"),
    "later steps": ([LATER], "", f"has {LATER} and no {FIRST}, which has the first step; put it beside it"),
    "later steps and the encoder": ([LATER, ENCODER], "", f"has {LATER} and no {FIRST}"),
    "an encoder": ([ENCODER], "", f"has {ENCODER} and no {FIRST}; put it beside it, or give the encoder's file"),
}


@pytest.mark.parametrize("case", LACKING)
def test_parts_that_lack_others(case: str, tmp_path: Path) -> None:
    names, given, message = LACKING[case]
    folder = parts(tmp_path / "folder", *names, merged=MERGED in names)
    with pytest.raises(BadInput, match=re.escape(message)):
        onnxsmith.optimize(folder / given, tmp_path / "fast", cache=True)
    assert not (tmp_path / "fast").exists()


def _narrow(encoder: onnx.ModelProto) -> None:
    encoder.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 24


def _other_name(encoder: onnx.ModelProto) -> None:
    encoder.graph.output[0].name = encoder.graph.node[-1].output[0] = "pooled"


def _older(encoder: onnx.ModelProto) -> None:
    encoder.opset_import[0].version = 16


MISFITS: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "another size": (_narrow, "gives last_hidden_state of size 24, .* takes encoder_hidden_states of size 32"),
    "another output": (_other_name, "gives no last_hidden_state, so they are no two parts of one model"),
    "another opset": (_older, "gives opsets {'': 16}, .* takes opsets {'': 17}; export both together"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_parts_that_do_not_fit(case: str, tmp_path: Path) -> None:
    change, message = MISFITS[case]
    folder = parts(tmp_path / "folder", ENCODER, FIRST)
    encoder = onnx.load(folder / ENCODER)
    change(encoder)
    onnx.save(encoder, folder / ENCODER)
    with pytest.raises(BadInput, match=message):
        load_model(folder)


def test_which_file_is_told(tmp_path: Path) -> None:
    folder = parts(tmp_path / "folder", ENCODER, FIRST)
    shutil.copy(folder / ENCODER, folder / "encoder_model_fp16.onnx")
    shutil.copy(folder / FIRST, folder / "decoder_model_fp16.onnx")
    assert open_artifact(folder).model.name == FIRST
    other = open_artifact(folder / "decoder_model_fp16.onnx").exported
    assert other is not None and other.encoder == folder / "encoder_model_fp16.onnx"
    shutil.copy(folder / ENCODER, folder / "model.onnx")
    with pytest.raises(BadInput, match=r"has decoder_model.onnx, .* and which one to take cannot be told; give the"):
        open_artifact(folder)
    alone = parts(tmp_path / "alone", ENCODER)
    (alone / ENCODER).rename(alone / "mine.onnx")
    assert open_artifact(alone).model == alone / "mine.onnx"


def first_step(folder: Path) -> onnx.ModelProto:
    """GPT-2 without a past, with what would be one among its outputs."""
    onnxsmith.export("gpt", folder, checkpoint=folders("gpt2")[0], exporter="torchscript")
    model = onnx.load(folder / "model.onnx")
    table = next(t for t in model.graph.initializer if len(t.dims) == 2)
    model.graph.node.append(onnx.helper.make_node("Identity", [table.name], ["present.0.key"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("present.0.key", table.data_type, table.dims))
    return model


def in_a_branch(first: onnx.ModelProto) -> onnx.ModelProto:
    """The same as one branch of two, of which the other gives nonsense."""
    graph, outputs = first.graph, list(first.graph.output)
    nonsense = [onnx.helper.make_node("Identity", [f"past_key_values.0.{v.name}"], [v.name]) for v in outputs]
    branches = {
        "then_branch": onnx.helper.make_graph(nonsense, "then", [], outputs),
        "else_branch": onnx.helper.make_graph(graph.node, "else", [], outputs),
    }
    choice = onnx.helper.make_node("If", ["use_cache_branch"], [v.name for v in outputs], **branches)
    given = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in outputs}
    pasts = [onnx.helper.make_tensor_value_info(f"past_key_values.0.{n}", 1, shape) for n, shape in given.items()]
    flag = onnx.helper.make_tensor_value_info("use_cache_branch", onnx.TensorProto.BOOL, [1])
    inputs = [*graph.input, *pasts, flag]
    merged = onnx.helper.make_graph([choice], "merged", inputs, outputs, graph.initializer)
    return onnx.helper.make_model(merged, opset_imports=first.opset_import, ir_version=first.ir_version)


@pytest.mark.parametrize("name", [FIRST, MERGED])
def test_a_decoder_alone(name: str, tmp_path: Path) -> None:
    """Its first step is enough."""
    folder = tmp_path / "folder"
    folder.mkdir()
    first = first_step(tmp_path / "plain")
    onnx.save(in_a_branch(first) if name == MERGED else first, folder / name)
    (folder / LATER).touch()
    for file in ("config.json", "generation_config.json"):
        shutil.copy(folders("gpt2")[0] / file, folder)
    assert [v.name for v in load_model(folder).graph.outputs] == ["logits"]
    onnxsmith.optimize(folder, tmp_path / "fast", cache=True, verify="off")
    check("gpt2", onnxsmith.load(tmp_path / "fast", threads=1))


def test_a_folder_in_parts_does_not_run_by_itself() -> None:
    with pytest.raises(BadInput, match=r"do not run as one; make one of them: onnxsmith optimize"):
        onnxsmith.load(exported("bart"))
