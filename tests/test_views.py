"""Views: whatever a chain of them is, the shortest one gives the same bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsmith.compiler.session import run_model
from onnxsmith.passes.canonicalize import infer, shorten, sweep
from onnxsmith.passes.canonicalize.views import is_view
from onnxsmith.passes.engine.values import attribute
from tests.toy import parsed

LENGTHS = {"B": 2, "S": 3}


def chain(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph if is_view(n)]


def shortened(model: ir.Model) -> ir.Model:
    copy = model.clone()
    infer(copy)
    shorten(copy)
    sweep(copy)
    return copy


def feeds(model: ir.Model) -> dict[str, np.ndarray]:
    (x,) = model.graph.inputs
    assert x.shape is not None
    shape = [d if isinstance(d, int) else LENGTHS[str(d.value)] for d in x.shape]
    return {"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape)}


def check(model: ir.Model) -> ir.Model:
    """The shortened model, after the same bits from both and no longer a chain."""
    after = shortened(model)
    given = feeds(model)
    assert np.array_equal(run_model(after)(given)["y"], run_model(model)(given)["y"])
    assert len(chain(after)) <= len(chain(model))
    return after


@st.composite
def chains(draw: st.DrawFn) -> str:
    """A graph of one to six views from [B, S, 8], each with a target that its source allows."""
    dims: list[int | str] = ["B", "S", 8]
    lines, consts = [], []
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["Transpose", "Split", "Merge", "Unsqueeze", "Squeeze", "Flat"]))
        source = f"v{i}"
        if kind == "Transpose":
            perm = draw(st.permutations(range(len(dims))))
            dims = [dims[p] for p in perm]
            lines.append(f"v{i + 1} = Transpose<perm={list(perm)}>({source})")
            continue
        if kind == "Unsqueeze":
            axis = draw(st.integers(0, len(dims)))
            dims = [*dims[:axis], 1, *dims[axis:]]
            consts.append(f"int64[1] c{i} = {{{axis}}}")
            lines.append(f"v{i + 1} = Unsqueeze({source}, c{i})")
            continue
        if kind == "Squeeze" and 1 in dims:
            axis = dims.index(1)
            dims = dims[:axis] + dims[axis + 1 :]
            consts.append(f"int64[1] c{i} = {{{axis - len(dims) - 1}}}")
            lines.append(f"v{i + 1} = Squeeze({source}, c{i})")
            continue
        target, dims = _reshape(draw, kind, dims)
        consts.append(f"int64[{len(target)}] c{i} = {{{', '.join(map(str, target))}}}")
        lines.append(f"v{i + 1} = Reshape({source}, c{i})")
    body = "\n".join(lines).replace("v0", "x")
    rank = ", ".join(f"d{i}" if isinstance(d, str) else str(d) for i, d in enumerate(dims))
    return (
        f'<ir_version: 10, opset_import: ["" : 23]> g (float[B,S,8] x) => (float[{rank}] y)\n'
        f"<{', '.join(consts) or 'int64 unused = {0}'}>\n{{\n{body}\ny = Identity(v{len(lines)})\n}}"
    )


def _reshape(draw: st.DrawFn, kind: str, dims: list[int | str]) -> tuple[list[int], list[int | str]]:
    """A Reshape target (0 copies, -1 is computed) and the dimensions that it gives."""
    copied = [0 if isinstance(d, str) else d for d in dims]
    even = [i for i, d in enumerate(dims) if isinstance(d, int) and d % 2 == 0]
    if kind == "Split" and even:
        at = draw(st.sampled_from(even))
        whole = dims[at]
        assert isinstance(whole, int)
        halves: list[int | str] = [2, whole // 2]
        after = dims[:at] + halves + dims[at + 1 :]
        tail = dims[at + 1 :]
        if all(isinstance(d, int) for d in tail):
            return [*copied[:at], 2, whole // 2, *copied[at + 1 :]], after
    last = len(dims) - 1
    known = [i for i in range(last) if isinstance(dims[i], int) and isinstance(dims[i + 1], int)]
    if kind == "Merge" and known and all(isinstance(d, int) for d in dims[known[-1] :]):
        at = known[-1]
        a, b = dims[at], dims[at + 1]
        assert isinstance(a, int) and isinstance(b, int)
        return [*copied[:at], a * b, *copied[at + 2 :]], [*dims[:at], a * b, *dims[at + 2 :]]
    if kind == "Flat" and not isinstance(dims[0], str) and sum(isinstance(d, str) for d in dims) == 1:
        return [-1 if isinstance(d, str) else d for d in dims], dims
    return copied, dims


@settings(max_examples=60, deadline=None)
@given(chains())
def test_random_chains(text: str) -> None:
    check(parsed(text))


def test_a_swap_by_way_of_three_dimensions_is_a_reshape_and_a_transpose() -> None:
    after = check(
        parsed("""
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S,8] x) => (float[B,2,4,S] y)
<int64[4] split = {0, 0, 2, 4}, int64[2] heads = {2, 4}, int64[1] all = {-1}, int64[1] two = {2}>
{
    a = Reshape(x, split)
    h = Transpose<perm=[0, 2, 1, 3]>(a)
    batch = Shape<start=0, end=1>(x)
    length = Shape<start=1, end=2>(x)
    size = Shape<start=3, end=4>(h)
    flat = Concat<axis=0>(all, length, size)
    b = Reshape(h, flat)
    t = Transpose<perm=[0, 2, 1]>(b)
    back = Concat<axis=0>(batch, two, size, length)
    y = Reshape(t, back)
}
""")
    )
    assert chain(after) == ["Reshape", "Transpose"]
    assert attribute(next(n for n in after.graph if n.op_type == "Transpose"), "perm") == [0, 2, 3, 1]


_HEAD = '<ir_version: 10, opset_import: ["" : 23]> g (float[B,S,8] x) => '


def test_a_target_with_zeros_is_never_moved_to_another_source() -> None:
    body = "<int64[1] first = {0}, int64[5] split = {1, 0, 0, 2, 4}> { u = Unsqueeze(x, first) y = Reshape(u, split) }"
    check(parsed(_HEAD + "(float[1,B,S,2,4] y) " + body))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(float[B,S,8] y) { a = Transpose<perm=[0,2,1]>(x) b = Transpose<perm=[0,2,1]>(a) y = Neg(b) }", []),
        ("(float[B,8,S] y) { a = Transpose<perm=[1,2,0]>(x) y = Transpose<perm=[2,1,0]>(a) }", ["Transpose"]),
        ("(float[B,S,8] y) <int64[1] i = {1}> { a = Unsqueeze(x, i) b = Squeeze(a, i) y = Neg(b) }", []),
        (
            "(float[B,S,8] y) <int64[1] i = {1}> { a = Unsqueeze(x, i) b = Squeeze(a) y = Neg(b) }",
            ["Unsqueeze", "Squeeze"],
        ),
        ("(float[P,8] y) { a = Flatten<axis=2>(x) y = Neg(a) }", ["Flatten"]),
    ],
    ids=["undone", "composed", "unsqueezed and back", "a squeeze of unknown axes", "alone"],
)
def test_chains(text: str, expected: list[str]) -> None:
    assert chain(check(parsed(_HEAD + text))) == expected


def test_a_graph_output_keeps_its_name() -> None:
    after = check(parsed(_HEAD + "(float[B,S,8] y) { a = Transpose<perm=[0,2,1]>(x) y = Transpose<perm=[0,2,1]>(a) }"))
    assert [v.name for v in after.graph.outputs] == ["y"]


def test_a_view_that_something_else_reads_stays() -> None:
    after = check(
        parsed(
            _HEAD
            + "(float[B,S,8] y, float[B,8,S] a)"
            + "{ a = Transpose<perm=[0,2,1]>(x) b = Transpose<perm=[0,2,1]>(a) y = Neg(b) }"
        )
    )
    assert chain(after) == ["Transpose"]
    assert [v.name for v in after.graph.outputs] == ["y", "a"]
