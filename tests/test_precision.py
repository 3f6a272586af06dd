"""16-bit floats: what stays in float32 and why, what is clipped, and what the emulation that judges them shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.calibrate import magnitudes
from onnxsmith.compiler.emulate import is_narrow, widened
from onnxsmith.compiler.kernels_cuda import CUDA
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize, infer
from onnxsmith.passes.engine.absent import AbsentTensor
from onnxsmith.passes.engine.names import name_nodes
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.precision.formats import BF16, FP16, Format
from onnxsmith.passes.precision.narrow import narrow
from onnxsmith.runtime.parity import cosine, rms
from tests.golden import random_feeds
from tests.toy import encoder, parsed

HEAD = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>\n'


def model_of(graph: str, weights: Mapping[str, np.ndarray] | None = None) -> ir.Model:
    model = parsed(HEAD + graph, weights)
    name_nodes(model)
    infer(model)
    return model


def narrowed(
    model: ir.Model, form: Format = FP16, largest: Mapping[str, float] | None = None, keep_io: bool = True
) -> tuple[ir.Model, list[Remark]]:
    copy = model.clone()
    kernels = replace(CUDA, narrow=form.dtype)
    remarks = narrow(copy, form, kernels, largest or {}, keep_io)
    onnx.checker.check_model(ir.to_proto(copy))
    return copy, remarks


PRODUCT = "g (float[B,8] x) => (float[B,8] y) { y = MatMul(x, w) }"
WEIGHTS = {"w": np.random.default_rng(0).normal(size=(8, 8))}


class TestFormats:
    @pytest.mark.parametrize("form", [FP16, BF16])
    def test_the_range_is_the_formats(self, form: Format) -> None:
        assert np.isfinite(form.rounded(np.float32([form.largest, -form.largest])).astype(np.float32)).all()
        assert np.isinf(form.rounded(np.float32([form.largest * 1.003])).astype(np.float32)).all()


class TestEmulation:
    def test_it_rounds_every_result(self) -> None:
        x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
        (y,) = run_model(widened(narrowed(model_of(PRODUCT, WEIGHTS))[0]))({"x": x}).values()
        half = x.astype(np.float16).astype(np.float32) @ WEIGHTS["w"].astype(np.float16).astype(np.float32)
        np.testing.assert_allclose(y, half.astype(np.float16).astype(np.float32), rtol=2e-3)
        np.testing.assert_array_equal(y, y.astype(np.float16).astype(np.float32))  # no digits beyond 16 bits

    def test_it_is_what_onnx_runtime_does_in_float16(self) -> None:
        """The CPU has float16 kernels, or casts around others: the same numbers up to where it rounds in between."""
        model = pipeline.run(canonicalize(encoder()), pipeline.passes(target("cuda", "fp16"), "fp16")).model
        assert is_narrow(model) and not is_narrow(encoder())
        feeds = {name: np.ones((2, 5), np.int64) for name in ("input_ids", "attention_mask")}
        (own,), (ours,) = (list(run_model(m)(feeds).values()) for m in (model, widened(model)))
        (full,) = run_model(encoder())(feeds).values()
        assert cosine(own, ours).min() > 0.99999
        assert rms(own - ours) < 2 * rms(own - full)

    @pytest.mark.parametrize(("form", "error"), [(FP16, 2e-3), (BF16, 2e-2)])
    def test_each_format_shows_its_own_error(self, form: Format, error: float) -> None:
        model = model_of(PRODUCT, WEIGHTS)
        feeds = random_feeds(model)
        (full,), (half,) = (list(run_model(m)(feeds).values()) for m in (model, widened(narrowed(model, form)[0])))
        assert error / 100 < rms(full - half) / rms(full) < error


class TestIslands:
    SQUARE = "g (float[B,8] x) => (float[B,8] y) { p = MatMul(x, w) q = Mul(p, p) r = Div(q, p) y = MatMul(r, w) }"

    def test_without_them_an_overflow_would_show(self) -> None:
        model = model_of(self.SQUARE, {"w": 100 * WEIGHTS["w"]})
        feeds = random_feeds(model)
        blind, _ = narrowed(model)
        seen, remarks = narrowed(model, largest=magnitudes(model, {}))
        (broken,), (whole,) = (list(run_model(widened(m))(feeds).values()) for m in (blind, seen))
        assert not np.isfinite(broken).all() and np.isfinite(whole).all()
        assert any("q reaches" in r.reason for r in remarks)

    def test_bfloat16_needs_none_of_them(self) -> None:
        model = model_of(self.SQUARE, {"w": 100 * WEIGHTS["w"]})
        assert narrowed(model, BF16, magnitudes(model, {}))[1] == []

    def test_an_operator_without_a_float32_kernel_is_told(self) -> None:
        model = model_of(
            "g (float[B,S,32] q, float[B,S,16] k, int32[B] last, int32 total) => (float[B,S,32] y)"
            "{ a = Neg(k) y, b, c ="
            " com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, a, k, , , last, total) }"
        )
        for v in model.graph[1].outputs:
            v.type = ir.TensorType(ir.DataType.FLOAT)
        model.graph[1].outputs[0].shape = model.graph.outputs[0].shape
        copy, remarks = narrowed(model, largest={"a": 1e6})
        assert [r.reason for r in remarks][-1].endswith("but GroupQueryAttention has no float32 kernel")
        assert next(n for n in copy.graph if n.domain).outputs[0].dtype == ir.DataType.FLOAT16

    def test_a_small_bias_is_none(self) -> None:
        model = model_of("g (float[B,8] x) => (float[B,8] y) { y = Add(x, b) }", {"b": np.full(8, 1e-9)})
        assert narrowed(model)[1] == []


class TestInterface:
    def test_kept(self) -> None:
        copy, _ = narrowed(model_of(PRODUCT, WEIGHTS))
        assert [v.dtype for v in (*copy.graph.inputs, *copy.graph.outputs)] == [ir.DataType.FLOAT] * 2

    def test_narrow(self) -> None:
        copy, _ = narrowed(model_of(PRODUCT, WEIGHTS), keep_io=False)
        assert [v.dtype for v in (*copy.graph.inputs, *copy.graph.outputs)] == [ir.DataType.FLOAT16] * 2
        assert [n.op_type for n in copy.graph] == ["MatMul"]
        x = np.ones((2, 8), np.float16)
        assert next(iter(run_model(copy)({"x": x}).values())).dtype == np.float16

    def test_an_input_with_a_default_keeps_its_type(self) -> None:
        model = model_of("g (float[B,8] x, float[8] b) => (float[B,8] y) { y = Add(x, b) }", {"b": np.ones(8)})
        copy, _ = narrowed(model, keep_io=False)
        assert [v.dtype for v in copy.graph.inputs] == [ir.DataType.FLOAT16, ir.DataType.FLOAT]
        x = np.ones((2, 8), np.float16)
        np.testing.assert_array_equal(run_model(copy)({"x": x})["y"], x + 1)

    def test_an_island_at_a_narrow_output(self) -> None:
        copy, _ = narrowed(model_of("g (float[B,8] x) => (float[B,8] y) { y = Softmax(x) }"), keep_io=False)
        assert [v.dtype for v in (*copy.graph.inputs, *copy.graph.outputs)] == [ir.DataType.FLOAT16] * 2
        assert [v.name for v in copy.graph.outputs] == ["y"]

    def test_an_input_that_is_an_output(self) -> None:
        copy, _ = narrowed(model_of("g (float[B,8] x) => (float[B,8] y, float[B,8] x) { y = MatMul(x, w) }", WEIGHTS))
        assert [v.name for v in copy.graph.outputs] == ["y", "x"]

    def test_an_output_that_is_read_inside(self) -> None:
        model = model_of("g (float[B,8] x) => (float[B,8] y, float[B,8] z) { y = MatMul(x, w) z = Relu(y) }", WEIGHTS)
        copy, _ = narrowed(model)
        feeds = random_feeds(model)
        own, half = run_model(model)(feeds), run_model(widened(copy))(feeds)
        assert list(own) == list(half)
        assert all(cosine(half[name], own[name]).min() > 0.9999 for name in own)


class TestWeights:
    def test_absent_ones_stay_absent(self) -> None:
        model = model_of(PRODUCT, WEIGHTS)
        w = model.graph.initializers["w"]
        w.const_value = AbsentTensor(ir.DataType.FLOAT, ir.Shape([8, 8]), "w")
        assert magnitudes(model, {}) == {}
        assert narrow(model, FP16, replace(CUDA, narrow=ir.DataType.FLOAT16), {}) == []
        (left,) = model.graph.initializers.values()
        assert isinstance(left.const_value, AbsentTensor) and left.const_value.dtype == ir.DataType.FLOAT16

    def test_one_copy_for_all_that_read_it(self) -> None:
        model = model_of("g (float[B,8] x) => (float[B,8] y) { p = MatMul(x, w) y = MatMul(p, w) }", WEIGHTS)
        copy, _ = narrowed(model)
        assert [(v.name, v.dtype) for v in copy.graph.initializers.values()] == [("w_fp16", ir.DataType.FLOAT16)]
