"""An encoder-decoder exported plainly becomes an encoder and a decoder with a cache, and generates what it did."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import onnxsmith
from onnxsmith.compiler.artifact import write_artifact
from onnxsmith.compiler.exporters import Exporter, to_onnx
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.parts import seq2seq_tasks
from onnxsmith.models.task import ExportTask, TensorSpec
from onnxsmith.models.transformer import Transformer, TransformerConfig
from onnxsmith.runtime.model import LoadedModel
from tests.coverage.wrappers import CausalTransformer
from tests.generation import EOS, PAD, padded, rows_of, varied
from tests.toy import parsed

VOCABULARY, LENGTH = 64, 40
LENGTHS = (9, 5, 1, 7)
TASK = seq2seq_tasks(VOCABULARY, 32, TransformerConfig(VOCABULARY, 32, 1, 4, 40).cache, LENGTH)[0]


class OfTorch(nn.Module):
    """nn.Transformer between learned embeddings and a head; ``masked`` tells whether it takes masks of its texts."""

    def __init__(self, *, masked: bool = True) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(VOCABULARY, 32), nn.Embedding(LENGTH, 32)
        self.body = CausalTransformer(nn.Transformer(32, 4, 1, 1, 48, batch_first=True))
        self.head, self.masked = nn.Linear(32, VOCABULARY), masked

    def forward(self, *inputs: Tensor) -> Tensor:
        """Ids and mask of the source, then of the target, [B, S] each; ids alone where it takes no masks."""
        given = inputs if self.masked else [x for ids in inputs for x in (ids, torch.ones_like(ids))]
        source, mask, target, target_mask = given
        embedded = [self.token(ids) + self.place(torch.arange(ids.shape[1])) for ids in (source, target)]
        hidden: Tensor = self.head(self.body(*embedded, mask == 0, target_mask == 0))
        return hidden


class WithoutMasks(OfTorch):
    def __init__(self) -> None:
        super().__init__(masked=False)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(input_ids, decoder_input_ids)


class WithMasks(OfTorch):
    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor
    ) -> Tensor:
        return super().forward(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask)


def ours(positions: str) -> nn.Module:
    return Transformer(TransformerConfig(VOCABULARY, 32, 1, 4, 40, positions=positions, length=LENGTH))


def write(module: nn.Module, folder: Path, task: ExportTask = TASK) -> Path:
    """The plain export of an encoder-decoder, as an artifact."""
    generation = {"eos_token_id": EOS, "decoder_start_token_id": PAD}
    manifest = {"format": 1, "task": task.name, "bounds": dict(task.bounds), "generation": generation}
    exporter: Exporter = "dynamo" if isinstance(module, OfTorch) else "torchscript"  # which is quicker, but bakes sizes
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole layer, which no exporter knows
    try:
        write_artifact(folder, to_onnx(Checkpoint(varied(module), task, {}), exporter), manifest)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return folder


def compiled(module: nn.Module, folder: Path, task: ExportTask = TASK, **options: Any) -> LoadedModel:
    report = onnxsmith.optimize(write(module, folder / "plain", task), folder / "fast", cache=True, **options)
    assert report.parity is not None and report.parity.fine and report.parity.evidence
    assert {site.status for site in report.sites if site.kind == "attention"} == {"fused"}
    return onnxsmith.load(folder / "fast", threads=1)


def manifests(folder: Path) -> list[dict[str, Any]]:
    """Of the encoder and of the decoder."""
    return [json.loads((folder / part / "onnxsmith.json").read_text()) for part in ("encoder", "decoder")]


def greedy(module: nn.Module, row: Sequence[int], count: int, *, masked: bool = True) -> tuple[int, ...]:
    """Without a cache, by the module itself."""
    source, found = torch.tensor([row]), [PAD]
    while len(found) <= count and found[-1] != EOS:
        pair = (source, torch.tensor([found]))
        inputs = [x for ids in pair for x in ((ids, torch.ones_like(ids)) if masked else (ids,))]
        with torch.no_grad():
            found.append(int(module(*inputs)[0, -1].argmax()))
    return tuple(found[1:])


@pytest.mark.parametrize("positions", ["sinusoidal", "relative"])
def test_the_original_transformer(positions: str, tmp_path: Path) -> None:
    module = ours(positions)
    model = compiled(module, tmp_path)
    assert model.generation.interface.in_place
    rows = rows_of(LENGTHS)
    found = model.generate(rows, max_new_tokens=20).sequences
    assert list(found) == [greedy(module, row, 20) for row in rows]
    assert len(set(found)) > 1


def test_torchs_own_transformer(tmp_path: Path) -> None:
    module = WithMasks()
    model = compiled(module, tmp_path, verify="each")
    rows = rows_of(LENGTHS)
    assert list(model.generate(rows, max_new_tokens=12).sequences) == [greedy(module, row, 12) for row in rows]


@pytest.mark.slow
def test_a_source_without_a_mask(tmp_path: Path) -> None:
    """Texts of one length alone: nothing can tell padding apart."""
    module = WithoutMasks()
    task = ExportTask(
        "seq2seq",
        tuple(TensorSpec(name, "int64", ("batch", f"{name}_length")) for name in ("input_ids", "decoder_input_ids")),
        (TensorSpec("logits", "float32", ("batch", "decoder_input_ids_length", VOCABULARY)),),
        {"input_ids_length": LENGTH, "decoder_input_ids_length": LENGTH},
    )
    model = compiled(module, tmp_path, task)
    rows = rows_of((7, 7, 7))
    expected = [greedy(module, row, 12, masked=False) for row in rows]
    assert list(model.generate(rows, max_new_tokens=12).sequences) == expected
    with pytest.raises(BadInput, match="sources of one length, found texts of 5 and of 9 tokens"):
        model.generate(rows_of((9, 5)))


@pytest.mark.parametrize("positions", ["sinusoidal", "relative"])
def test_padding_of_sources_is_not_read(positions: str, tmp_path: Path) -> None:
    module = ours(positions)
    model = compiled(module, tmp_path, unpad=True)
    rows = rows_of(LENGTHS)
    assert list(model.generate(rows, max_new_tokens=12).sequences) == [greedy(module, row, 12) for row in rows]
    encoder, decoder = manifests(tmp_path / "fast")
    assert "unpad" in encoder["passes"] and "padded_positions" in encoder
    assert "unpad" not in decoder["passes"] and "padded_positions" not in decoder
    ids, mask = padded(rows, "right")
    keys, values = (
        onnxsmith.load(tmp_path / "fast" / "encoder").run({"input_ids": ids, "attention_mask": mask})[name]
        for name in decoder["cache"]["cross"]["outputs"]
    )
    for given in (keys, values):
        kept = given.any((1, 3))
        assert (kept == (mask == 1)).all()


def test_two_folders(tmp_path: Path) -> None:
    """Keys and values of the source are laid out by the encoder once, and read as they are."""
    onnxsmith.optimize(write(ours("learned"), tmp_path / "plain"), tmp_path / "fast", cache=True, verify="off")
    encoder, decoder = manifests(tmp_path / "fast")
    assert (encoder["task"], decoder["task"]) == ("encoder-with-present", "decoder-with-past")
    cross = decoder["cache"]["cross"]
    assert cross["outputs"] == [entry["name"] for entry in encoder["outputs"]]
    assert cross["inputs"] == [entry["name"] for entry in encoder["inputs"]] == ["input_ids", "attention_mask"]
    assert [decoder["cache"][name] for name in ("ids", "mask")] == ["decoder_input_ids", "decoder_attention_mask"]
    graph = ir.load(tmp_path / "fast" / "decoder" / "model.onnx").graph
    readers = {node.op_type for v in graph.inputs if v.name in cross["past"] for node, _ in v.uses()}
    assert readers == {"MultiHeadAttention", "Shape"}
    with pytest.raises(BadInput, match="an encoder-decoder's decoder alone"):
        onnxsmith.load(tmp_path / "fast" / "decoder").generate([[7]])


def test_both_parts_are_verified_anew(tmp_path: Path) -> None:
    plain, fast = write(ours("learned"), tmp_path / "plain"), tmp_path / "fast"
    onnxsmith.optimize(plain, fast, cache=True)
    found = onnxsmith.verify(fast, against=plain)
    assert found.fine and found.certified and found.whole
    assert {name.split("/")[1] for part in found.parts for name in part.nodes if "/" in name} >= {"encoder", "decoder"}
    with pytest.raises(BadInput, match="a decoder without its encoder; give the folder that holds both"):
        onnxsmith.verify(fast / "decoder", against=plain)
    encoder = fast / "encoder" / "model.onnx"
    model = ir.load(encoder)
    model.producer_name = "somebody else"
    ir.save(model, encoder)
    assert onnxsmith.verify(fast, against=plain).files == (str(encoder),)


def test_they_take_the_place_of_earlier_ones_alone(tmp_path: Path) -> None:
    plain, fast = write(ours("learned"), tmp_path / "plain"), tmp_path / "fast"
    for _ in range(2):
        onnxsmith.optimize(plain, fast, cache=True, verify="off")
    assert sorted(path.name for path in fast.iterdir()) == ["decoder", "encoder"]
    (fast / "decoder" / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds other files \(notes.txt\)"):
        onnxsmith.optimize(plain, fast, cache=True, verify="off")
    with pytest.raises(BadUsage, match="two models; give a folder"):
        onnxsmith.optimize(plain, tmp_path / "fast.onnx", cache=True, verify="off")
    assert not (tmp_path / "fast.onnx").exists()


def test_in_integers(tmp_path: Path) -> None:
    """Both parts are quantized, and how near their logits stay is told."""
    plain = write(ours("learned"), tmp_path / "plain")
    report = onnxsmith.optimize(plain, tmp_path / "fast", cache=True, precision="int8")
    assert report.parity is not None and report.parity.closeness[0].smallest_cosine > 0.99
    for part in ("encoder", "decoder"):
        nodes = ir.load(tmp_path / "fast" / part / "model.onnx").graph
        assert any("Integer" in node.op_type or "Quantize" in node.op_type for node in nodes)
    with pytest.raises(BadUsage, match="a budget is held by one model"):
        onnxsmith.optimize(plain, tmp_path / "other", cache=True, precision="int8", budget="cosine=0.9")


GRAPH = """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[B,{source}] source, int64[B,{source}] source_mask, int64[B,S] ids, int64[B,S] mask)
    => (float[B,S,9] logits)
<int64 zero = {{0}}, int64 one = {{1}}, int64[1] first = {{1}}, int64[2] middle = {{1, 2}}>
{{
    n = Shape<start=1, end=2>(ids)
    length = Squeeze(n)
    steps = Range(zero, length, one)
    column = Unsqueeze(steps, first)
    causal = LessOrEqual(steps, column)
    keys = Unsqueeze(mask, middle)
    allowed = Cast<to=9>(keys)
    all = Or(causal, allowed)
    seen = And(allowed, {seen})
    read = Gather(table, source)
    x = Gather(table, ids)
    y = Attention<q_num_heads=2, kv_num_heads=2>(x, x, x, seen)
    h = Add(x, y)
    z = Attention<q_num_heads=2, kv_num_heads=2>(h, read, read)
    w = Add(h, z)
    {last}
    logits = MatMul(out, head)
}}
"""
SOUND = {"source": "R", "seen": "causal", "last": "out = Identity(w)"}
REFUSED = {
    "bidirectional": ({"seen": "all"}, "a token sees later ones"),
    "one text beside the other": ({"last": "out = Add(w, read)"}, "does not treat each token apart"),
    "one length for both": ({"source": "S"}, r"expected one input of token ids \[B, S\], found source, ids"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_whole(case: str, tmp_path: Path) -> None:
    """Then it stays one model, and a remark says why."""
    changes, reason = REFUSED[case]
    text = GRAPH.format(**SOUND | changes)
    random, sizes = np.random.default_rng(0), {"table": (11, 16), "head": (16, 9)}
    ir.save(parsed(text, {n: random.standard_normal(size) for n, size in sizes.items()}), tmp_path / "plain.onnx")
    report = onnxsmith.optimize(tmp_path / "plain.onnx", tmp_path / "fast", cache=True)
    (remark,) = [r for r in report.remarks if r.rule == "kv-cache"]
    assert remark.kind == "missed"
    assert re.search(reason, remark.reason), remark.reason
    assert json.loads((tmp_path / "fast" / "onnxsmith.json").read_text()).get("cache") is None
    assert report.parity is not None and report.parity.fine
