"""The difference through the rewrites: every original node is accounted for once, recorded or matched."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.compare.modules import Block, block_of, blocks, path_of
from onnxsmith.compiler.compare.structure import changes
from onnxsmith.compiler.compare.through import account, prepared
from onnxsmith.compiler.inputs import cases
from onnxsmith.compiler.load import load_model
from onnxsmith.passes.engine.provenance import MODULE, ORIGIN, RULES
from tests.coverage.accounts import unaccounted
from tests.toy import encoder, parsed


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[ir.Model, ir.Model]:
    folder = tmp_path_factory.mktemp("pair")
    write_model(folder / "a.onnx", encoder())
    onnxsmith.optimize(folder / "a.onnx", folder / "b.onnx", verify="off")
    return prepared(load_model(folder / "a.onnx")), prepared(load_model(folder / "b.onnx"))


def test_groups_say_what_became_of_nodes(pair: tuple[ir.Model, ir.Model]) -> None:
    found = account(*pair)
    assert unaccounted(*pair, found) == []
    groups = {name: group for group in found.groups for name in group.origins}
    norm = groups["Sqrt"]
    assert (norm.fate, norm.rules[0], len(norm.origins)) == ("rewritten", "layer-norm", 9)
    assert groups["Softmax"] is groups["MatMul_3"]
    assert (groups["MatMul_6"].fate, groups["MatMul_6"].made) == ("kept", ("MatMul_6",))
    assert groups["Range"].fate == "unneeded"


def test_lost_and_doubled_nodes_are_noticed(pair: tuple[ir.Model, ir.Model]) -> None:
    found = account(*pair)
    norm = next(group for group in found.groups if "Sqrt" in group.origins)
    others = tuple(group for group in found.groups if group is not norm)
    lost = unaccounted(*pair, replace(found, groups=others))
    assert {f"{name} is in 0 groups" for name in norm.origins} | {f"{norm.made[0]} stands for nothing"} == set(lost)
    doubled = unaccounted(*pair, replace(found, groups=(*found.groups, norm)))
    assert set(doubled) == {f"{name} is in 2 groups" for name in norm.origins}


def test_without_records_nodes_are_matched_by_names(pair: tuple[ir.Model, ir.Model]) -> None:
    original, variant = pair[0], forgetful(pair[1])
    found = account(original, variant)
    assert not found.exact
    assert unaccounted(original, variant, found) == []
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
    assert unaccounted(original, variant, found.account) == []
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
