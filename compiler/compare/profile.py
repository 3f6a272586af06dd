"""Where the time of a run goes, by operator, and how much of what the machine can do it uses."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from onnxsmith.compiler.compare.variants import Opened
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.measure import elapsed
from onnxsmith.runtime.session import PROVIDERS, Provider, session_options

_RUNS, _WARM = 8, 3
_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "MatMulNBits", "MatMulIntegerToFloat"})
_PRODUCTS |= frozenset({"DynamicQuantizeMatMul", "MatMulInteger", "QGemm"})
_SIDE, _LENGTH = 1024, 1 << 24  # of the products and vectors by which the roofs are measured


@dataclass(frozen=True)
class Operator:
    """One type of operator in one run: nodes, ms, and what they compute and move.

    ``gflop`` counts products and attention alone (two for each multiplication with an addition), ``megabytes`` are
    what the nodes read and write once each.
    """

    operator: str
    nodes: int
    ms: float
    gflop: float
    megabytes: float


@dataclass(frozen=True)
class Roofs:
    """What the machine reaches: float32 products of ONNX Runtime, and reading and writing of memory.

    Products in integers may reach more.
    """

    gflop_s: float
    gigabytes_s: float


def profile(variant: Opened, feeds: Feeds, provider: Provider, threads: int | None) -> tuple[Operator, ...]:
    """The operators of a run, the costliest first, as ONNX Runtime's profiler times them; none for no ONNX model."""
    if variant.model is None:
        return ()
    with tempfile.TemporaryDirectory(prefix="onnxsmith-") as folder:
        options = session_options(threads, config=variant.model.config)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = ort.InferenceSession(str(variant.model.artifact.model), options, [PROVIDERS[provider]])
        given = dict(variant.feeds(feeds))
        for _ in range(_WARM + _RUNS):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return operators(events)


def operators(events: Sequence[Mapping[str, Any]], warm: int = _WARM) -> tuple[Operator, ...]:
    """Sums by operator over the runs after the ``warm`` ones, for one run each."""
    kernels: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels[event["name"]].append(event)
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for runs in kernels.values():
        warm_runs = runs[warm:] or runs
        args = runs[-1]["args"]
        total = sums[args["op_name"]]
        total[0] += 1
        total[1] += float(np.median([event["dur"] for event in warm_runs])) / 1e3
        total[2] += _flops(args) / 1e9
        total[3] += _moved(args) / 1e6
    found = [Operator(name, int(n), ms, gflop, mb) for name, (n, ms, gflop, mb) in sums.items()]
    return tuple(sorted(found, key=lambda o: -o.ms))


def _moved(args: Mapping[str, Any]) -> int:
    """Bytes that are read and written once each; of a table only the rows that are picked."""
    read, weights, made = (int(args.get(f"{kind}_size", 0)) for kind in ("activation", "parameter", "output"))
    return 2 * made if args["op_name"] == "Gather" else read + weights + made


def _flops(args: Mapping[str, Any]) -> float:
    """Of a product or an attention; others compute little beside what they move."""
    read, made = (_shapes(args.get(f"{kind}_type_shape", ())) for kind in ("input", "output"))
    if args["op_name"] in _PRODUCTS and read and made and read[0]:
        return 2.0 * math.prod(made[0]) * read[0][-1]
    if args["op_name"] in ("Attention", "MultiHeadAttention") and len(read) > 2 and len(read[0]) == len(read[1]):
        q, k, v = read[:3]  # [B, S, H D], or [B, H, S, D]
        return 2.0 * math.prod(q) * k[-2] + 2.0 * math.prod(q[:-1]) * k[-2] * v[-1]
    return 0.0


def _shapes(described: Sequence[Mapping[str, list[int]]]) -> list[list[int]]:
    return [shape for item in described for shape in item.values()]


@cache
def roofs(threads: int | None = None) -> Roofs:
    """Measured here and now, in about a second; the best of a few runs."""
    square, vector = np.ones((_SIDE, _SIDE), np.float32), np.ones(_LENGTH, np.float32)
    product, copy = _session("MatMul", 2, threads), _session("Neg", 1, threads)
    return Roofs(
        2 * _SIDE**3 / _best(product, {"a": square, "b": square}) / 1e9,
        2 * vector.nbytes / _best(copy, {"a": vector}) / 1e9,
    )


def _session(operator: str, inputs: int, threads: int | None) -> ort.InferenceSession:
    kind = onnx.TensorProto.FLOAT
    names = ["a", "b"][:inputs]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, names, ["y"])],
        "roof",
        [onnx.helper.make_tensor_value_info(name, kind, None) for name in names],
        [onnx.helper.make_tensor_value_info("y", kind, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), session_options(threads), [PROVIDERS["cpu"]])


def _best(session: ort.InferenceSession, feeds: Feeds, runs: int = 6) -> float:
    session.run(None, dict(feeds))
    return min(elapsed(lambda: session.run(None, dict(feeds)), time.perf_counter) for _ in range(runs))
