"""Opening what is compared: artifact folders and .onnx files, ``torch:`` checkpoints, and other implementations."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.padding import counting
from onnxsmith.compiler.source import open_source
from onnxsmith.compiler.steps import as_prompt
from onnxsmith.errors import BadInput
from onnxsmith.passes.cache.record import recorded
from onnxsmith.runtime.embed import RunFeeds
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.model import LoadedModel, load
from onnxsmith.runtime.session import Provider

TORCH = "torch:"
# Idle threads of one session would spin on the cores that the other one is being timed on.
_QUIET = {"session.force_spinning_stop": "1"}


@dataclass(frozen=True)
class Opened:
    """A variant that runs on the reference's names. ``graph`` and ``model`` are None for what is no ONNX model.

    ``truth`` computes the same in float64, where it is not the graph that is evaluated. ``given`` are feeds under the
    model's own names. ``padding`` is the mask of a model with a cache in place, which computes no padded positions.
    ``made`` holds the model's file for as long as this lives, where it was written for the comparison.
    """

    name: str
    run: RunFeeds
    graph: ir.Model | None = None
    model: LoadedModel | None = None
    seconds: float | None = None
    truth: RunFeeds | None = None
    given: RunFeeds | None = None
    padding: str | None = None
    made: TemporaryDirectory[str] | None = None

    @property
    def session(self) -> str | None:
        """How ONNX Runtime was set up."""
        if self.model is None:
            return None
        return ", ".join(["ORT_ENABLE_ALL", *(f"{key}={value}" for key, value in self.model.config.items())])

    def feeds(self, feeds: Feeds) -> Feeds:
        """The feeds under the model's own names, with what a model with a cache takes besides."""
        return self.given(feeds) if self.given else feeds

    def counting(self, reference: ir.Model, cases: Sequence[Case]) -> list[Case]:
        """The cases with the positions that count in this variant; ``reference`` says it where it has no graph."""
        if self.padding is None:
            return counting(self.graph or reference, cases)
        return [replace(c, rows=c.feeds[self.padding] != 0) if self.padding in c.feeds else c for c in cases]


def open_variant(
    path: str | Path, provider: Provider, threads: int | None, names: Mapping[str, str], reference: Opened | None = None
) -> Opened:
    """Open one variant; ``names`` are the reference's names by the variant's.

    Raises:
        BadInput: the model cannot be used, or takes inputs or gives outputs that the reference does not have.
    """
    if str(path).startswith(TORCH):
        return _open_torch(str(path))
    graph = load_model(path)  # first: it says best what is wrong with a file
    start = time.perf_counter()
    model, made = _load(path, graph, provider, threads)
    seconds = time.perf_counter() - start
    ours = {info.name: names.get(info.name, info.name) for info in (*model.inputs, *model.outputs)}
    cache = recorded(graph)
    padding = ours.get(cache.mask, cache.mask) if cache is not None and cache.layout != "concat" else None
    complete, wanted = as_prompt(graph), [info.name for info in model.inputs]

    def given(feeds: Feeds) -> dict[str, NDArray[Any]]:
        renamed = complete({own: feeds[name] for own, name in ours.items() if name in feeds})
        return {name: renamed[name] for name in wanted if name in renamed}

    def run(feeds: Feeds) -> dict[str, NDArray[Any]]:
        found = {ours[name]: array for name, array in model.run(given(feeds)).items()}
        return _spread(found, feeds[padding]) if padding is not None and padding in feeds else found

    opened = Opened(str(path), run, graph, model, seconds, given=given, padding=padding, made=made)
    if reference is not None and reference.model is not None:
        _check_names(opened, reference.model, ours)
    return opened


def _load(
    path: str | Path, graph: ir.Model, provider: Provider, threads: int | None
) -> tuple[LoadedModel, TemporaryDirectory[str] | None]:
    """A session of the file; where several files make one model, of one that is written of the graph, in a folder."""
    source, made = open_source(path), None
    if source.exported is not None and source.exported.is_decoder:
        made = TemporaryDirectory(prefix="onnxsmith-", ignore_cleanup_errors=True)
        source = replace(source, model=Path(made.name, "model.onnx"))
        write_model(source.model, graph)
    model = load(path if source.exported is None else source.model, provider=provider, threads=threads, config=_QUIET)
    return (model if source.exported is None else replace(model, artifact=source)), made


def _spread(found: Mapping[str, NDArray[Any]], mask: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Results of which the tokens of a row stand first, with each where the mask [B, S] has its token."""
    places = np.argsort(np.argsort(mask == 0, axis=1, kind="stable"), axis=1)
    return {
        name: np.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), 1)
        if x.shape[:2] == mask.shape
        else x
        for name, x in found.items()
    }


def _check_names(variant: Opened, reference: LoadedModel, names: Mapping[str, str]) -> None:
    """The reference has every input that the variant needs, and some output of it."""
    assert variant.model is not None and variant.graph is not None
    expected = sorted(info.name for info in reference.inputs)
    made = {info.name for info in variant.model.inputs} if "cache" in variant.model.manifest else set()
    found = sorted(names[info.name] for info in variant.model.inputs if info.name not in made)
    if not set(found) <= set(expected):
        raise BadInput(
            f"{variant.name}: expected inputs {expected} as in the reference, found {found}; map their names"
        )
    ours, theirs = ({info.name for info in infos} for infos in (variant.model.outputs, reference.outputs))
    if not {names[name] for name in ours} & theirs:
        wanted = f"{variant.name}: expected outputs {sorted(theirs)} as in the reference"
        raise BadInput(f"{wanted}, found {sorted(ours)}; map their names")


def _open_torch(name: str) -> Opened:
    """The checkpoint's module in PyTorch, with its float64 self as the truth."""
    try:
        from onnxsmith.models.checkpoint import load_checkpoint
    except ModuleNotFoundError as e:
        raise BadInput(f"{name} needs {e.name}, which is not installed: pip install 'onnxsmith[torch]'") from e
    from onnxsmith.compiler.peer import in_double, torch_peer

    start = time.perf_counter()
    checkpoint = load_checkpoint(Path(name.removeprefix(TORCH)))
    return Opened(name, torch_peer(checkpoint), seconds=time.perf_counter() - start, truth=in_double(checkpoint))
