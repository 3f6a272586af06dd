"""Running variants of one model on the same inputs, interleaved with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxsmith.compiler.closeness import logits
from onnxsmith.compiler.compare.column import Beside, Limits, Setting
from onnxsmith.compiler.compare.inputs import given_case, synthesize, text_case
from onnxsmith.compiler.compare.known import know
from onnxsmith.compiler.compare.latency import PAIRS
from onnxsmith.compiler.compare.pareto import pareto
from onnxsmith.compiler.compare.profile import roofs
from onnxsmith.compiler.compare.report import Comparison, Variant
from onnxsmith.compiler.compare.variants import Opened, open_variant
from onnxsmith.compiler.compare.worst import check_folder, save
from onnxsmith.compiler.inputs import Case, cases
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.embed import RunFeeds
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.session import Provider


def compare(
    paths: Sequence[str | Path],
    *,
    shapes: Mapping[str, int] | Sequence[Mapping[str, int]] | None = None,
    inputs: Feeds | None = None,
    texts: Sequence[str] | None = None,
    pairs: int = PAIRS,
    peers: Mapping[str, RunFeeds] | None = None,
    provider: Provider = "cpu",
    threads: int | None = None,
    names: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    quick: bool = False,
    save_worst: str | Path | None = None,
) -> Comparison:
    """Compare variants of one model: verdict, structure, errors against float64, latency, and what is dominated.

    Every variant runs at ORT_ENABLE_ALL with the session options recorded in it: a raw export has all of ONNX
    Runtime's own optimization. Runs of a variant and of the reference alternate in one process, both warm.

    Args:
        paths: Artifact folders, .onnx files, and ``torch:FOLDER`` for a checkpoint in PyTorch; the first is the
            reference.
        shapes: Sizes of dynamic dimensions by name, one set or several; batch 1 and sequence 128 where none is given.
        inputs: Arrays to time and judge on; made from what the graph declares when None.
        texts: Texts to judge on; with a reference of task "embed" also to search among.
        pairs: Timed pairs of runs per variant.
        peers: Other implementations by name, from feeds to outputs, such as PyTorch.
        provider: "cpu" or "cuda".
        threads: Threads inside an operator; None leaves it to ONNX Runtime.
        names: The reference's names of inputs and outputs by what variants call them.
        limits: What makes a lossy variant "within budget".
        quick: Leave out errors by layer, times by operator, memory and the first run.
        save_worst: A folder for each variant's worst input, as .npz.

    Raises:
        BadInput: A model cannot be used, takes inputs that the reference lacks, or shares no output with it.
        BadUsage: There is nothing to compare with the reference, or ``shapes`` or ``pairs`` make no sense.
    """
    peers = peers or {}
    _check(paths, peers, save_worst)
    first, others = _opened(paths, peers, provider, threads, names or {})
    setting = Setting(pairs, provider, threads, limits or Limits(), quick)
    beside, note = _beside(first, others, _sets(shapes), inputs, texts or (), setting)
    columns = [beside.column(other) for other in others]
    variants = (beside.own(columns), *columns)
    if save_worst is not None:
        _save_worst(Path(save_worst), columns, beside)
    return Comparison(
        variants,
        {name: array.shape for name, array in beside.feeds[0].items()},
        provider,
        threads,
        pairs,
        tuple(pareto(variants)),
        None if quick or provider != "cpu" else roofs(threads),
        note,
    )


def _check(paths: Sequence[str | Path], peers: Mapping[str, RunFeeds], save_worst: str | Path | None) -> None:
    """Before a model is opened: there is something to compare, and the folder takes what is to be saved."""
    if not paths or len(paths) + len(peers) < 2:
        raise BadUsage("compare needs two or more variants, the reference first")
    if save_worst is not None:
        check_folder(Path(save_worst))


def _opened(
    paths: Sequence[str | Path],
    peers: Mapping[str, RunFeeds],
    provider: Provider,
    threads: int | None,
    names: Mapping[str, str],
) -> tuple[Opened, list[Opened]]:
    """The reference and the others."""
    first = open_variant(paths[0], provider, threads, {})
    others = [open_variant(path, provider, threads, names, first) for path in paths[1:]]
    return first, others + [Opened(name, run) for name, run in peers.items()]


def _save_worst(folder: Path, columns: Sequence[Variant], beside: Beside) -> None:
    """The worst inputs of all variants that were judged, by their places."""
    for place, column in enumerate(columns, 1):
        if column.accuracy:
            save(folder, place, column.accuracy, beside.known)


def _sets(shapes: Mapping[str, int] | Sequence[Mapping[str, int]] | None) -> list[Mapping[str, int]]:
    if shapes is None:
        return [{}]
    return [shapes] if isinstance(shapes, Mapping) else list(shapes) or [{}]


def _beside(
    reference: Opened,
    others: Sequence[Opened],
    shapes: Sequence[Mapping[str, int]],
    inputs: Feeds | None,
    texts: Sequence[str],
    setting: Setting,
) -> tuple[Beside, str]:
    """The inputs, and what the reference makes of them; a note says what could not be done."""
    found = next(((o.graph, o.model) for o in (reference, *others) if o.graph is not None), None)
    if found is None or found[1] is None:
        raise BadInput("nothing says which inputs to make; compare with one ONNX model or more")
    graph, host = found[0], found[1]
    assert graph is not None
    bounds = host.manifest.get("bounds", {})
    feeds = [inputs] if inputs is not None else [synthesize(graph, host.inputs, sizes, bounds) for sizes in shapes]
    given: list[Case] = [given_case("the given inputs", inputs, graph)] if inputs is not None else []
    given += [text_case(texts, graph, host.artifact)] if texts else []
    known, note = know(reference, graph, [*given, *cases(graph, bounds)])
    searched = texts if host.manifest.get("task") == "embed" else ()
    return Beside(reference, host, graph, feeds, known, logits(graph), searched, setting), note
