"""On a GPU: every CUDA lowering in fp32, fp16 and bf16 against float64. Skipped where CUDA does not work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxsmith
from onnxsmith.compiler import pipeline
from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.inputs import Case, cases
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.target import target
from onnxsmith.errors import BadInput
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.runtime.parity import counted, rms
from onnxsmith.runtime.session import PROVIDERS, open_session
from tests import golden
from tests.tiny import write_mlp

LIMITS = {"fp32": 3e-3, "fp16": 1e-2, "bf16": 6e-2}  # relative RMS; fp32 products are TF32, of 10 bits
GRAPHS = sorted(p for p in (golden.CASES / "lower-cuda").glob("*.txt") if "applied" in golden.read(p).remarks)
MODELS = ("bert-tiny", "gpt-tiny", "llama-tiny", "t5-tiny")
each_precision = pytest.mark.parametrize("precision", LIMITS)


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        open_session(write_mlp(tmp_path_factory.mktemp("probe") / "m.onnx"), provider="cuda")
    except BadInput as error:
        pytest.skip(str(error))


def run_on_cuda(path: Path, feeds: golden.Values) -> golden.Values:
    session = open_session(path, provider="cuda")
    given = {i.name: feeds[i.name] for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))


def with_keys(value: np.ndarray, case: Case) -> np.ndarray:
    """The positions of an output [B, S, ...] that are no padding, or else the batch rows [B, ...] with any such."""
    mask = case.feeds.get("decoder_attention_mask", case.feeds["attention_mask"]).astype(bool)
    return value[mask] if value.ndim > 2 and value.shape[:2] == mask.shape else counted(value, case.rows)


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@each_precision
@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_every_lowering(path: Path, precision: str, tmp_path: Path) -> None:
    before = golden.read(path).model()
    outcome = pipeline.run(canonicalize(before.clone()), pipeline.passes(target("cuda", precision), precision))
    write_model(tmp_path / "m.onnx", outcome.model)
    feeds = golden.random_feeds(before)
    truth, found = Reference(before).run(feeds), run_on_cuda(tmp_path / "m.onnx", feeds)
    for name, value in found.items():
        assert rms(value.astype(np.float64) - truth[name]) < LIMITS[precision] * rms(truth[name]), name


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@each_precision
@pytest.mark.parametrize("name", MODELS)
def test_whole_models(name: str, precision: str, tmp_path: Path) -> None:
    raw = onnxsmith.export(name, tmp_path / "raw")
    onnxsmith.optimize(raw, tmp_path / "fast", target="cuda", precision=precision)
    original = load_model(raw)
    bounds = json.loads((raw / "onnxsmith.json").read_text())["bounds"]
    for case in cases(original, bounds):
        truth, found = Reference(original).run(case.feeds), run_on_cuda(tmp_path / "fast" / "model.onnx", case.feeds)
        for output, value in found.items():
            right, ours = with_keys(truth[output], case), with_keys(value, case)
            assert rms(ours.astype(np.float64) - right) < LIMITS[precision] * rms(right), (case.name, output)


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generation_in_place(graph: bool, settings: dict[str, int], tmp_path: Path) -> None:
    """In float16 on CUDA, as on the CPU; the second time on the buffers of the first."""
    raw = onnxsmith.export("gpt-tiny", tmp_path / "raw")
    onnxsmith.optimize(raw, tmp_path / "fast", cache=True, target="cuda", precision="fp16", verify="off")
    prompts = [[7, 8, 9], [10], [11, 12]]
    cpu, cuda = (onnxsmith.load(tmp_path / "fast", provider=p, cuda_graph=p == "cuda" and graph) for p in PROVIDERS)
    for _ in range(2):
        found, expected = (m.generate(prompts, max_new_tokens=12, **settings) for m in (cuda, cpu))
        assert found.sequences == expected.sequences


def test_an_artifact_for_cuda_is_never_run_on_the_cpu_in_silence(tmp_path: Path) -> None:
    raw = onnxsmith.export("bert-tiny", tmp_path / "raw")
    onnxsmith.optimize(raw, tmp_path / "fast", target="cuda", verify="off")
    try:
        model = onnxsmith.load(tmp_path / "fast")
    except BadInput as error:
        assert str(error).startswith("cuda does not work on this machine (") and "\n" not in str(error)
        assert onnxsmith.load(tmp_path / "fast", provider="cpu").session.get_providers() == ["CPUExecutionProvider"]
    else:
        assert model.session.get_providers()[0] == "CUDAExecutionProvider"
