"""Dimensions that the user names: what they make possible, and what is refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.errors import BadInput
from tests.command import Invoke
from tests.toy import parsed

_TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[b0, 2, s, 8] q, float[b1, 2, t0, 8] k, float[b2, 2, t1, 8] v, float[1, 2, s, t0] mask)
    => (float[b3, 2, s, 8] y)
<float scale = {0.5}>
{
    turned = Transpose<perm=[0, 1, 3, 2]>(k)
    product = MatMul(q, turned)
    scaled = Mul(product, scale)
    masked = Add(scaled, mask)
    probabilities = Softmax<axis=-1>(masked)
    y = MatMul(probabilities, v)
}
"""
_ALIKE = {"q": ("batch", 2, "queries", 8), "k": ("batch", 2, "keys", 8), "v": ("batch", 2, "keys", 8)}
_ALIKE |= {"mask": (1, 2, "queries", "keys")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "open.onnx"
    onnx.save(ir.to_proto(parsed(_TEXT, {})), made)
    return made


def test_what_is_unknown_says_what_to_do(path: Path) -> None:
    (site,) = onnxsmith.explain(path).sites
    assert site.status == "missed" and "give them one name (--dims)" in str(site.reason)


def test_named_alike_it_is_fused_and_verified(path: Path, tmp_path: Path) -> None:
    report = onnxsmith.optimize(path, tmp_path / "fast", dims=_ALIKE)
    assert [site.status for site in report.sites] == ["fused"]
    assert report.parity is not None and report.parity.fine and report.parity.evidence[0].cases > 1


def test_by_command(path: Path, tmp_path: Path, invoke: Invoke) -> None:
    words = [w for name, dims in _ALIKE.items() for w in ("--dims", f"{name}={','.join(map(str, dims))}")]
    assert invoke("explain", path, "--require", "attention=all", *words).code == 0
    assert invoke("explain", path, "--require", "attention=all").code == 1
    assert invoke("optimize", path, "-o", tmp_path / "fast", *words).code == 0


@pytest.mark.parametrize(
    ("dims", "mention"),
    [
        ({"x": ("batch",)}, "no input 'x'"),
        ({"q": ("batch", "heads")}, "has 4 dimensions"),
        ({"q": ("batch", 4, "queries", 8)}, "fixed at 2"),
    ],
)
def test_refused(path: Path, dims: dict[str, tuple[int | str, ...]], mention: str) -> None:
    with pytest.raises(BadInput, match=mention):
        onnxsmith.explain(path, dims=dims)


@pytest.mark.parametrize("text", ["q", "=batch", "q=", "q=batch,,8", "q=a b", "q=0,2"])
def test_no_dimensions(path: Path, invoke: Invoke, text: str) -> None:
    result = invoke("explain", path, "--dims", text)
    assert result.code == 2 and "such as input_ids=batch,sequence" in result.err
