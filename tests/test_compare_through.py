"""The difference through the rewrites: every original node is accounted for once, recorded or matched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.compare.modules import Block, block_of, blocks, path_of
from onnxsmith.compiler.compare.structure import changes
from onnxsmith.compiler.compare.through import Account, account, prepared
from onnxsmith.compiler.inputs import cases
from onnxsmith.compiler.load import load_model
from onnxsmith.passes.engine.provenance import MODULE, ORIGIN, RULES
from tests.coverage.batches import batches
from tests.coverage.exporters import EXPORTERS
from tests.coverage.exporting import build, export, program
from tests.coverage.families import FAMILIES
from tests.toy import encoder, parsed

GATE = [family.name for family in FAMILIES.values() if family.gate]
# The gate of the coverage through both exporters; the fast part takes every fifth family, through the faster one.
CELLS = [
    pytest.param(name, exporter, marks=() if exporter == "torchscript-17" and i % 5 == 0 else pytest.mark.slow)
    for i, name in enumerate(GATE)
    for exporter in ("torchscript-17", "dynamo-18")
]


def check_accounted(original: ir.Model, variant: ir.Model, found: Account) -> None:
    """Every original node in exactly one group, every new one in one or added, and nothing else."""
    accounted = Counter(name for group in found.groups for name in group.origins)
    assert accounted == Counter({str(n.name): 1 for n in original.graph.all_nodes()})
    standing = Counter(name for group in found.groups for name in group.made)
    assert set(standing) | set(found.added) == {str(n.name) for n in variant.graph.all_nodes()}
    assert not set(standing) & set(found.added)
    for group in found.groups:
        assert (group.fate in ("kept", "rewritten")) == bool(group.made), group


@pytest.mark.parametrize("family, exporter", CELLS)
def test_every_node_of_the_coverage_is_accounted_for_once(family: str, exporter: str, tmp_path: Path) -> None:
    spec, column = FAMILIES[family], EXPORTERS[exporter]
    module, (_, feeds) = build(spec, spec.attention[-1]), next(iter(batches(spec)))
    path = tmp_path / "model.onnx"
    export(program(module, spec, feeds) if column.dynamo else module, spec, column, feeds, path)
    onnxsmith.optimize(path, tmp_path / "fast.onnx", verify="off")
    original, variant = prepared(load_model(path)), prepared(load_model(tmp_path / "fast.onnx"))
    found = account(original, variant)
    check_accounted(original, variant, found)
    assert found.exact
    rewritten = [group for group in found.groups if group.fate == "rewritten"]
    assert rewritten and all(group.rules for group in rewritten)
    operators = {str(n.name): n.op_type for n in variant.graph.all_nodes()}
    fused = [g for g in rewritten if any(operators[name] in ("Attention", "MultiHeadAttention") for name in g.made)]
    softmax = {str(n.name) for n in original.graph.all_nodes() if n.op_type == "Softmax"}
    assert all(softmax.intersection(group.origins) for group in fused)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[ir.Model, ir.Model]:
    folder = tmp_path_factory.mktemp("pair")
    write_model(folder / "a.onnx", encoder())
    onnxsmith.optimize(folder / "a.onnx", folder / "b.onnx", verify="off")
    return prepared(load_model(folder / "a.onnx")), prepared(load_model(folder / "b.onnx"))


def test_groups_say_what_became_of_nodes(pair: tuple[ir.Model, ir.Model]) -> None:
    found = account(*pair)
    check_accounted(*pair, found)
    groups = {name: group for group in found.groups for name in group.origins}
    norm = groups["Sqrt"]
    assert (norm.fate, norm.rules[0], len(norm.origins)) == ("rewritten", "layer-norm", 9)
    assert groups["Softmax"] is groups["MatMul_3"]
    assert (groups["MatMul_6"].fate, groups["MatMul_6"].made) == ("kept", ("MatMul_6",))
    assert groups["Range"].fate == "unneeded"


def test_without_records_nodes_are_matched_by_names(pair: tuple[ir.Model, ir.Model]) -> None:
    original, variant = pair[0], forgetful(pair[1])
    found = account(original, variant)
    assert not found.exact
    check_accounted(original, variant, found)
    groups = {name: group for group in found.groups for name in group.origins}
    assert groups["Sqrt"].made == ("LayerNormalization_2",)
    assert set(account(*pair).groups[0].origins) == set(found.groups[0].origins)
    gelu = groups["Erf"]
    assert set(gelu.origins) == {"Div_3", "Erf", "Add_12", "Mul_3", "Mul_4"}


def test_without_names_nodes_are_matched_by_values(pair: tuple[ir.Model, ir.Model]) -> None:
    original, variant = pair[0], forgetful(pair[1])
    for i, node in enumerate(variant.graph):
        node.name = f"n{i}"
        for v in node.outputs:
            if not v.is_graph_output():
                v.name = f"v{i}"
    case = next(c for c in cases(original) if c.name == "no padding")
    found = changes(original, variant, case)
    check_accounted(original, variant, found.account)
    groups = {name: group for group in found.account.groups for name in group.origins}
    operators = {str(n.name): n.op_type for n in variant.graph}
    assert [operators[name] for name in groups["Sqrt"].made] == ["LayerNormalization"]
    assert [operators[name] for name in groups["Erf"].made] == ["Gelu"]


def forgetful(model: ir.Model) -> ir.Model:
    clone = model.clone()
    for node in clone.graph.all_nodes():
        for key in (RULES, ORIGIN, MODULE):
            node.metadata_props.pop(key, None)
    return clone


def test_constants_are_folded() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] y)
    <float one = {1.0}> { two = Add(one, one)  y = Mul(x, two) }"""
    short = """<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] y)
    <float two = {2.0}> { y = Mul(x, two) }"""
    found = account(prepared(parsed(text)), prepared(parsed(short)))
    assert [(g.fate, g.origins) for g in found.groups] == [("folded", ("Add",)), ("kept", ("Mul",))]


def test_modules_fold_to_blocks() -> None:
    assert block_of("encoder.layer.3.attention.self") == "encoder.layer.3.attention"
    assert block_of("bert.embeddings.norm") == "bert.embeddings"
    node = ir.node("Add", [])
    node.name = "/encoder/layer.0/Add_1"
    assert path_of(node) == "encoder.layer.0"
    node.metadata_props[MODULE] = "h.1.mlp"
    assert path_of(node) == "h.1.mlp"


def test_equal_layers_are_one_line() -> None:
    paths = {f"{kind}{i}": f"layer.{i}.mlp" for i in range(3) for kind in "ab"} | {"c": "head"}
    parts = [((f"a{i}", f"b{i}"), (f"g{i}",), ("gelu",)) for i in range(3)] + [(("c",), ("c",), ())]
    found = blocks(paths, parts, {**{f"g{i}": "Gelu" for i in range(3)}, "c": "Add"})
    assert found == [Block("layer.*.mlp", 2, (("Gelu", 1),), ("gelu",), 3), Block("head", 1, (("Add", 1),), ())]
    assert str(found[0]) == "layer.*.mlp: 2 nodes -> Gelu"
