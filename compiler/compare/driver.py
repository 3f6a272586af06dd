"""Running variants of one model on the same inputs, interleaved with the reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.compare.inputs import mask_names, synthesize
from onnxsmith.compiler.compare.numerics import output_parity, search_agreement
from onnxsmith.compiler.compare.report import Comparison, Variant
from onnxsmith.compiler.compare.structure import structure
from onnxsmith.compiler.load import load_model
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.embed import RunFeeds
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.measure import interleaved
from onnxsmith.runtime.model import LoadedModel, load
from onnxsmith.runtime.session import Provider

# Idle threads of one session would spin on the cores that the other one is being timed on.
_QUIET = {"session.force_spinning_stop": "1"}


@dataclass(frozen=True)
class _Reference:
    """The first variant and its results on the common inputs."""

    model: LoadedModel
    feeds: Feeds
    mask: NDArray[Any] | None
    outputs: Mapping[str, NDArray[Any]]
    texts: Sequence[str]
    embeddings: NDArray[np.float32] | None
    pairs: int

    def measure(self, variant: Variant, run: RunFeeds) -> Variant:
        """``variant`` with its parity, search agreement and latency filled in."""
        outputs = run(self.feeds)
        if absent := sorted(set(self.outputs) - set(outputs)):
            raise BadInput(
                f"{variant.name}: no output {', '.join(absent)}, which the reference has; rename its outputs"
            )
        parity = tuple(output_parity(n, np.asarray(outputs[n]), x, self.mask) for n, x in self.outputs.items())
        search = None
        if self.embeddings is not None:
            search = search_agreement(self.model.embed(self.texts, run=run), self.embeddings)
        ratio = interleaved(partial(self.model.run, self.feeds), partial(run, self.feeds), self.pairs)
        return replace(variant, parity=parity, search=search, latency=ratio, latency_ms=ratio.b_ms)


def compare(
    paths: Sequence[str | Path],
    *,
    shapes: Mapping[str, int] | None = None,
    inputs: Feeds | None = None,
    texts: Sequence[str] | None = None,
    pairs: int = 20,
    peers: Mapping[str, RunFeeds] | None = None,
    provider: Provider = "cpu",
    threads: int | None = None,
) -> Comparison:
    """Compare variants of one model: structure, latency, outputs, and search results when there are texts.

    Every variant runs at ORT_ENABLE_ALL with the session options recorded in it: a raw export has all of ONNX
    Runtime's own optimization. Runs of a variant and of the reference alternate in one process, both warm.

    Args:
        paths: Artifact folders or .onnx files with equal input and output names; the first is the reference.
        shapes: Sizes of dynamic dimensions by name; batch 1 and sequence 128 where none is given.
        inputs: Arrays to run on; made from what the reference declares when None.
        texts: Texts to embed and to search among, for a reference of task "embed".
        pairs: Timed pairs of runs per variant.
        peers: Other implementations by name, from feeds to outputs, such as PyTorch.
        provider: "cpu" or "cuda".
        threads: Threads inside an operator; None leaves it to ONNX Runtime.

    Raises:
        BadInput: A model cannot be used, or the names of inputs or outputs differ between variants.
        BadUsage: There is nothing to compare with the reference, or ``shapes`` or ``pairs`` make no sense.
    """
    peers = peers or {}
    if not paths or len(paths) + len(peers) < 2:
        raise BadUsage("compare needs two or more variants, the reference first")
    first, model, graph = _open(paths[0], provider, threads)
    feeds = dict(inputs or synthesize(graph, model.inputs, shapes or {}, model.manifest.get("bounds", {})))
    reference = _Reference(
        model=model,
        feeds=feeds,
        mask=next((feeds[name] for name in mask_names(graph) if name in feeds), None),
        outputs=model.run(feeds),
        texts=texts or (),
        embeddings=model.embed(texts) if texts else None,
        pairs=pairs,
    )
    others = [_compare_file(reference, path, provider, threads) for path in paths[1:]]
    others += [reference.measure(Variant(name), run) for name, run in peers.items()]
    first = replace(first, latency_ms=statistics.median(v.latency.a_ms for v in others if v.latency))
    sizes = {name: array.shape for name, array in feeds.items()}
    return Comparison((first, *others), sizes, provider, threads, pairs)


def _compare_file(reference: _Reference, path: str | Path, provider: Provider, threads: int | None) -> Variant:
    variant, model, _ = _open(path, provider, threads)
    for kind, ours, theirs in (
        ("inputs", model.inputs, reference.model.inputs),
        ("outputs", model.outputs, reference.model.outputs),
    ):
        found, expected = (sorted(info.name for info in infos) for infos in (ours, theirs))
        if found != expected:
            raise BadInput(f"{path}: expected {kind} {expected} as in the reference, found {found}; rename them")
    return reference.measure(variant, model.run)


def _open(path: str | Path, provider: Provider, threads: int | None) -> tuple[Variant, LoadedModel, ir.Model]:
    graph = load_model(path)  # first: it says best what is wrong with a file
    start = time.perf_counter()
    model = load(path, provider=provider, threads=threads, config=_QUIET)
    variant = Variant(
        name=str(path),
        session=", ".join(["ORT_ENABLE_ALL", *(f"{key}={value}" for key, value in model.config.items())]),
        precision=model.manifest.get("precision"),
        load_seconds=time.perf_counter() - start,
        structure=structure(graph, model.artifact.model),
    )
    return variant, model, graph
