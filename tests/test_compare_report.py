"""What a comparison says: verdicts and gates, JSON, the page, mappings; and that no name of a model does harm."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.budget import parse
from onnxsmith.compiler.closeness import Closeness
from onnxsmith.compiler.compare import Comparison, Gates, Limits
from onnxsmith.compiler.compare.accuracy import Accuracy, ulp
from onnxsmith.compiler.compare.explorer import mapping, write_mappings
from onnxsmith.compiler.compare.page import render, write_page
from onnxsmith.compiler.compare.page.text import LONGEST, clean
from onnxsmith.compiler.compare.verdict import verdict
from onnxsmith.errors import BadInput
from tests.command import Invoke
from tests.compared import compared
from tests.tiny import write_bert
from tests.toy import encoder

SHAPES = {"batch": 1, "sequence": 8}
LONG = "x" * 1_000_000
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}</style><!--",
    "$\\frac{x}{0}$",
    "\x1b[2J\x07bell\u202e",
)


def figures(**changes: Any) -> Accuracy:
    return replace(Accuracy("y", "long", 3, True, False, 1.0, 1.0, 1e-7, 1.0), **changes)


class TestVerdict:
    NEAR = (Closeness("y", 0.9, 0.95, 0.1),)

    def test_words(self) -> None:
        lossy = figures(fine=False, rms_ratio=1e5, relative_rms=0.1)
        assert verdict([figures(equal=True)], (), None, None).word == "identical"
        assert verdict([figures(equal=True), figures()], (), None, None).word == "equivalent"
        assert verdict([figures(), lossy], self.NEAR, None, None).word == "different"
        assert verdict([lossy], self.NEAR, 0.2, None).word == "within budget"
        assert verdict([lossy], self.NEAR, 0.05, None).word == "different"
        assert verdict([lossy], self.NEAR, None, parse("cosine=0.9")).word == "within budget"
        assert verdict([lossy], self.NEAR, 0.2, parse("cosine=0.99")).word == "different"

    def test_what_is_not_finite_is_different(self) -> None:
        broken = figures(fine=False, rms_ratio=np.inf, relative_rms=np.nan)
        assert verdict([broken], (), 1e9, None).word == "different"

    def test_reasons_name_the_worst(self) -> None:
        worst = figures(output="z", case="left padding", fine=False, rms_ratio=50.0)
        assert (
            "z: 50 times the reference's own RMS error on left padding"
            in verdict([figures(), worst], (), None, None).reason
        )


class TestGates:
    def test_no_gate_fails_nothing(self) -> None:
        assert Gates().failures(compared()) == []

    def test_each_gate_names_the_variant_and_the_figure(self) -> None:
        assert any("int8.onnx: relative RMS" in line for line in Gates(max_error=1e-5).failures(compared()))
        assert not any("fused.onnx" in line for line in Gates(max_error=1e-5).failures(compared()))
        assert any("speedup" in line for line in Gates(min_speedup=1e9).failures(compared()))
        (line,) = Gates(require="equivalent").failures(compared())
        assert line.startswith("int8.onnx: different (hidden: ") and line.endswith("equivalent wanted")
        (line,) = Gates(budget=parse("cosine=0.999999")).failures(compared())
        assert "cosine is 0.9" in line


def test_a_lossy_variant_says_where_it_leaves_the_reference() -> None:
    plain, fused, int8 = compared().variants
    assert plain.verdict is None and plain.accuracy[0].fine
    assert fused.verdict is not None and (fused.verdict.word, fused.verdict.diverging) == ("equivalent", None)
    assert int8.verdict is not None and int8.verdict.diverging is not None
    assert int8.verdict.diverging.rules[-1] == "int8-product"
    assert {layer.value for layer in fused.layers} >= {"embedded", "attended", "hidden"}
    assert all(layer.fine for layer in fused.layers)
    order = [layer.value for layer in fused.layers]
    assert order.index("embedded") < order.index("attended") < order.index("hidden")


def test_structure_and_costs() -> None:
    plain, fused, int8 = compared().variants
    assert plain.structure is not None and fused.structure is not None and int8.structure is not None
    assert plain.structure.sites == {"norm": (0, 3), "attention": (0, 1), "activation": (0, 1)}
    assert fused.structure.sites == {"norm": (3, 0), "attention": (1, 0), "activation": (1, 0)}
    assert set(int8.structure.weights) > {"FLOAT", "INT8"} - {"INT8"}
    assert plain.cost is not None and plain.cost.open_seconds > 0 and plain.cost.first_seconds > 0
    assert {o.operator for o in fused.operators} >= {"Attention", "MatMul", "LayerNormalization"}
    assert sum(o.gflop for o in fused.operators) > 0


def test_ulp() -> None:
    truth = np.array([1.0, -2.0, 0.5])
    assert ulp(truth.astype(np.float32), truth) == 0
    off = truth.astype(np.float32)
    off[1] = np.nextafter(off[1], np.float32(-3))
    assert ulp(off, truth) == pytest.approx(1)
    assert ulp(np.array([np.nan]), np.array([1.0])) == np.inf
    assert ulp(np.array([1, 2]), np.array([1, 2])) == 0
    assert ulp(np.array([1, 3]), np.array([1, 2])) == np.inf
    tiny = np.array([1.0, 1e-9])  # an error beside zero is one of the output's scale
    assert ulp(tiny.astype(np.float32) + np.array([0, 1e-7], np.float32), tiny) < 2


def test_the_worst_input_replays(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.onnx" for name in ("plain", "int8")]
    write_model(paths[0], encoder())
    onnxsmith.optimize(paths[0], paths[1], precision="int8", verify="off")
    found = onnxsmith.compare(
        paths, shapes=SHAPES, pairs=1, quick=True, save_worst=tmp_path / "worst", limits=Limits(max_error=1.0)
    )
    figures_ = found.variants[1].accuracy[0]
    (path,) = (tmp_path / "worst").iterdir()
    assert path.name == f"variant-1-{figures_.case.replace(' ', '-')}.npz"
    with np.load(path) as feeds:
        again = onnxsmith.compare(paths, pairs=1, quick=True, inputs=dict(feeds)).variants[1].accuracy[0]
    assert (again.case, again.rms_ratio) == ("the given inputs", pytest.approx(figures_.rms_ratio))
    assert found.variants[1].verdict is not None and found.variants[1].verdict.word == "within budget"


def test_pytorch_is_a_variant(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    raw = onnxsmith.export("bert", tmp_path / "raw", checkpoint=folder, exporter="torchscript")
    found = onnxsmith.compare([f"torch:{folder}", raw], pairs=1, quick=True)
    assert found.reference.structure is None and found.note == ""
    verdict_ = found.variants[1].verdict
    assert verdict_ is not None and verdict_.word in ("identical", "equivalent"), verdict_
    other = onnxsmith.compare([raw, f"torch:{folder}"], pairs=1, quick=True).variants[1]
    assert other.verdict is not None and other.verdict.word in ("identical", "equivalent")
    with pytest.raises(BadInput, match="one ONNX model or more"):
        onnxsmith.compare([f"torch:{folder}"] * 2, pairs=1)


def test_a_model_with_a_cache_is_compared_on_whole_texts(tmp_path: Path) -> None:
    raw = onnxsmith.export("gpt-tiny", tmp_path / "raw", exporter="torchscript")
    onnxsmith.optimize(raw, tmp_path / "cached", cache=True, all_logits=True, verify="off")
    found = onnxsmith.compare([raw, tmp_path / "cached"], shapes=SHAPES, pairs=1, quick=True).variants[1]
    assert found.verdict is not None and found.verdict.word == "equivalent", found.verdict
    (logits,) = found.accuracy
    assert logits.top1 == 1 and logits.kl is not None and abs(logits.kl) < 1e-9


def test_what_float64_cannot_evaluate_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    write_model(tmp_path / "plain.onnx", encoder())
    onnxsmith.optimize(tmp_path / "plain.onnx", path, precision="int8", verify="off")
    found = onnxsmith.compare([path, path], shapes=SHAPES, pairs=1, quick=True)
    assert found.note.startswith("no float64 evaluation of the reference")
    assert found.variants[1].verdict is not None and found.variants[1].verdict.word == "identical"


class TestCommand:
    def test_gates_set_the_exit_code(self, invoke: Invoke, tmp_path: Path) -> None:
        paths = [tmp_path / f"{name}.onnx" for name in ("plain", "int8")]
        write_model(paths[0], encoder())
        onnxsmith.optimize(paths[0], paths[1], precision="int8", verify="off")
        common = ("compare", *paths, "--pairs", "2", "--quick", "--shapes", "batch=1,sequence=5")
        fine = invoke(*common, "--shapes", "batch=2,sequence=3", "--max-error", "0.9", "--require", "within budget")
        assert fine.code == 0, fine.err
        assert "within budget" in fine.out and "1x5" in fine.out and "2x3" in fine.out
        failed = invoke(*common, "--require", "equivalent")
        assert failed.code == 1
        assert failed.err.startswith("error: ") and "equivalent wanted" in failed.err
        assert "first at " in failed.out and "int8-product" in failed.out

    @pytest.mark.parametrize(
        "args", [("--map", "a"), ("--map", "a=b", "--map", "a=c"), ("--budget", "beauty=1"), ("--require", "perfect")]
    )
    def test_wrong_usage(self, invoke: Invoke, args: tuple[str, ...]) -> None:
        result = invoke("compare", "a.onnx", "b.onnx", *args)
        assert (result.code, result.out) == (2, "")

    def test_outputs_are_refused_before_the_work(self, invoke: Invoke, tmp_path: Path) -> None:
        result = invoke("compare", "a.onnx", "b.onnx", "--html", tmp_path / "absent" / "x.html")
        assert (result.code, "folder does not exist" in result.err) == (3, True)

    def test_page_and_mappings(self, invoke: Invoke, tmp_path: Path) -> None:
        write_model(tmp_path / "a.onnx", encoder())
        page, nodes = tmp_path / "report.html", tmp_path / "nodes.json"
        args = ("--pairs", "2", "--shapes", "batch=1,sequence=8", "--quick", "--html", page, "--model-explorer", nodes)
        result = invoke("compare", tmp_path / "a.onnx", tmp_path / "a.onnx", *args)
        assert result.code == 0, result.err
        assert page.read_text().startswith("<!doctype html>")
        assert json.loads(nodes.read_text())["mapping"]["Gather"] == "Gather"


def test_mappings_are_what_model_explorer_reads(tmp_path: Path) -> None:
    changes = compared().variants[1].changes
    assert changes is not None
    data = mapping(changes)
    assert (data["type"], set(data)) == ("sync_navigation", {"type", "mapping", "disableMappingFallback"})
    pairs = data["mapping"]
    assert isinstance(pairs, dict)
    operators = {node.name: node.operator for node in changes.after}
    assert operators[pairs["Erf"]] == "Gelu" and operators[pairs["Sqrt"]] == "LayerNormalization"
    written = list(write_mappings(compared(), tmp_path / "m.json"))
    assert [path.name for path in written] == ["m.json", "m-2.json"]


def test_json_has_a_version_and_cuts_long_names() -> None:
    data = json.loads(json.dumps(compared().to_json(), allow_nan=False))
    assert data["format"] == 1
    assert data["variants"][1]["changes"]["account"]["exact"] is True
    long = replace(compared(), note="x" * 10**6)
    assert len(long.to_json()["note"]) < 1000


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


class TestPage:
    @pytest.fixture(autouse=True)
    def plots(self) -> None:
        pytest.importorskip("matplotlib")

    def test_nothing_is_loaded_and_nothing_foreign_runs(self) -> None:
        text = render(compared())
        page = Page(text)
        assert page.tags.count("script") == page.tags.count("style") == 1
        assert {"link", "img", "iframe", "object", "base"}.isdisjoint(page.tags)
        names = {name for name, _ in page.attributes}
        assert "style" not in names and "src" not in names and not any(name.startswith("on") for name in names)
        links = {value for name, value in page.attributes if name in ("href", "xlink:href")}
        assert all(value and value.startswith("#") for value in links)
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
        script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[0]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src &#39;sha256-{digest}&#39;" in policy
        assert policy.startswith("default-src &#39;none&#39;")

    def test_ids_are_unique_and_links_lead_somewhere(self) -> None:
        page = Page(render(compared()))
        ids = [value for name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        targets = {str(value)[1:] for name, value in page.attributes if name in ("href", "xlink:href")}
        assert targets <= set(ids)

    def test_it_is_small(self, tmp_path: Path) -> None:
        many = grown(compared(), 1000)
        write_page(many, tmp_path / "x.html")
        assert (tmp_path / "x.html").stat().st_size < 2_000_000

    def test_the_same_figures_make_the_same_page(self) -> None:
        assert render(compared()) == render(compared())


def grown(comparison: Comparison, nodes: int) -> Comparison:
    """The comparison of the first two variants with as many nodes in the original."""
    plain, fused = comparison.variants[:2]
    assert fused.changes is not None
    before = fused.changes.before
    times = -(-nodes // len(before))
    more = tuple(replace(n, name=f"{n.name}/{i}", module=f"layer.{i}") for i in range(times) for n in before)
    groups = tuple(
        replace(g, origins=tuple(f"{name}/{i}" for name in g.origins), made=tuple(f"{name}/{i}" for name in g.made))
        for i in range(times)
        for g in fused.changes.account.groups
    )
    after = tuple(replace(n, name=f"{n.name}/{i}") for i in range(times) for n in fused.changes.after)
    changes = replace(fused.changes, before=more, after=after, account=replace(fused.changes.account, groups=groups))
    return replace(comparison, variants=(plain, replace(fused, changes=changes)))


def hostile() -> ir.Model:
    """The toy encoder with names of nodes, values and an output that nobody should trust."""
    model = encoder()
    for i, node in enumerate(model.graph):
        node.name = f"{HOSTILE[i % len(HOSTILE)]} {i}"
        for v in node.outputs:
            if not v.is_graph_output() and i % 4:
                v.name = f"{HOSTILE[i % len(HOSTILE)]} {i}"
    for node in model.graph:
        node.metadata_props["onnxsmith.module"] = HOSTILE[len(str(node.name)) % 3]
    model.graph[10].name = model.graph[20].outputs[0].name = LONG
    model.graph.outputs[0].name = HOSTILE[0]
    return model


def test_hostile_names_do_no_harm(invoke: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_model(tmp_path / "a.onnx", hostile())
    page = tmp_path / "x.html"
    onnxsmith.optimize(tmp_path / "a.onnx", tmp_path / "$<b>&.onnx", verify="off")
    paths = (tmp_path / "a.onnx", tmp_path / "$<b>&.onnx")
    result = invoke("compare", *paths, "--pairs", "2", "--shapes", "batch=1,sequence=4", "--html", page)
    assert result.code == 0, result.err
    assert "\x1b" not in result.out and "\x07" not in result.out and len(result.out) < 100_000
    text = page.read_text()
    assert Page(text).tags.count("script") == 1 and "img" not in Page(text).tags
    assert "&lt;script&gt;" in text and "{{ 7 * 7 }}" in text
    assert "\x1b" not in text and "\u202e" not in text and len(text) < 2_000_000
    told = invoke("compare", *paths, "--pairs", "2", "--quick", "--shapes", "batch=1,sequence=4", "--json")
    assert told.code == 0 and len(told.out) < 2_000_000
    assert "\x1b" not in told.out
    assert json.loads(told.out)["variants"][1]["accuracy"][0]["output"] == HOSTILE[0]


def test_clean_cuts_the_middle_out() -> None:
    assert clean("a\x1b\n b") == "a b"
    assert len(clean("x" * 10**6)) == LONGEST + 1
    assert clean(HOSTILE[0]) == HOSTILE[0]  # escaping is the template's
