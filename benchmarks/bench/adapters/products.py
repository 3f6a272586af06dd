"""The roof: a model's matrix products and nothing else, each alone in ONNX Runtime, as often as the model has them.

The products are read from a run of the module in PyTorch, so they count every layer, the head, and both products of
attention.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.bench.adapters import Ids, Prepare, Run
from benchmarks.bench.subjects import load_module

Product = tuple[int, int, int, int]  # stacked, M, K, N: [stacked, M, K] x [stacked, K, N]
_MAT1 = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # where the first factor stands


def open_engine(folder: Path, variant: str, threads: int) -> Prepare:
    config = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    module = load_module(config["model_type"], folder / "checkpoint")
    module.model.set_attn_implementation("eager")  # whose products are plain ones
    onnxruntime.set_global_thread_pool_sizes(threads, 1)  # pools of their own would spin beside one another

    def prepare(ids: Ids) -> Run:
        found = find_products(module, ids.shape)
        flops = sum(2 * math.prod(product) * count for product, count in found.items())
        return Products([(count, _alone(product)) for product, count in found.items()], flops)

    return prepare


@dataclass(frozen=True)
class Products:
    """All products of a model at one shape, ready to run; ``flops`` of one run count a product and its sum as two."""

    parts: list[tuple[int, Run]]
    flops: int

    def __call__(self) -> None:
        for count, run in self.parts:
            for _ in range(count):
                run()


def find_products(module: Any, shape: tuple[int, ...]) -> Counter[Product]:
    """How often each product occurs when the module runs on ids [B, S]."""
    found = _Recorder()
    ids = torch.ones(shape, dtype=torch.int64)
    with torch.no_grad(), found:
        module(ids, torch.ones_like(ids))
    return found.products


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _MAT1:
            a, b = args[_MAT1[name] :][:2]
            self.products[(a.shape[0] if a.dim() == 3 else 1, a.shape[-2], a.shape[-1], b.shape[-1])] += 1
        return func(*args, **(kwargs or {}))


def _alone(product: Product) -> Run:
    """A model of one MatMul; its second factor is a constant, as weights are, unless several are stacked."""
    stacked, m, k, n = product
    lead = [stacked] if stacked > 1 else []
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal([*lead, *size], np.float32) for size in ((m, k), (k, n)))
    feeds = {"a": a, "b": b} if lead else {"a": a}
    inputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, v.shape) for x, v in feeds.items()]
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [*lead, m, n])
    weights = [] if lead else [numpy_helper.from_array(b, "b")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.use_per_session_threads = False
    options.log_severity_level = 3  # it warns that sessions have no pool of their own
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    binding.bind_output("c", "cpu")
    return lambda: session.run_with_iobinding(binding)
