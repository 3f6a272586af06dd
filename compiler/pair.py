"""A folder of two, encoder/ and decoder/, as an encoder-decoder with past is exported: each is compiled by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from onnxsmith.compiler.artifact import check_writable, replaced
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.past import usable_past
from onnxsmith.compiler.report import OptimizeReport, joined
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.cache import Refused
from onnxsmith.runtime.artifact import DECODER, ENCODER, Artifact, open_artifact

Optimize = TypeVar("Optimize", bound=Callable[..., OptimizeReport])
_OF_ONE = ("budget", "calibrate", "last_token")  # options that are for a model as a whole


def each_part(optimize: Optimize) -> Optimize:
    """Let :func:`onnxsmith.optimize` take a folder of two as well, and write another.

    The report is of both, and the decoder's outputs have their own names in it.
    """

    @wraps(optimize)
    def parts(source: str | Path, output: str | Path | None, **options: Any) -> OptimizeReport:
        artifact = open_artifact(source)
        if artifact.source is None:
            return optimize(source, output, **options)
        _check(artifact, Path(source), None if output is None else Path(output), options)
        each = _each(artifact, options, cached=bool(options.get("cache")) and _gets_cache(artifact))
        if output is None:
            return _of_two(*(optimize(_path(part), None, **own) for part, own in each))
        with replaced(Path(output)) as made:
            made.mkdir()
            folders = zip(each, (DECODER, ENCODER), strict=True)
            return _of_two(*(optimize(_path(part), made / name, **own) for (part, own), name in folders))

    return cast(Optimize, parts)


def _each(artifact: Artifact, options: dict[str, Any], *, cached: bool) -> Sequence[tuple[Artifact, dict[str, Any]]]:
    """The decoder and the encoder with their options: only a decoder keeps something of its text.

    A decoder that is ``cached`` takes 16-bit keys and values of the source where it is of 16 bits, so they are given.
    """
    assert artifact.source is not None, "it has two"
    own = {name: value for name, value in options.items() if name not in ("cache", "cache_precision", "all_logits")}
    decoders = options | ({"unpad": False} if cached else {})  # its rows have no padding then
    return (artifact, decoders), (artifact.source, own | ({"half_io": True} if cached else {}))


def _path(artifact: Artifact) -> Path:
    return artifact.folder or artifact.model


def _of_two(decoder: OptimizeReport, encoder: OptimizeReport) -> OptimizeReport:
    return joined(decoder, encoder, ENCODER)


def _check(artifact: Artifact, source: Path, output: Path | None, options: dict[str, Any]) -> None:
    """Before any work is done. Raises BadUsage for what one model is asked for, BadInput for parts that do not fit."""
    if wanted := next((name for name in _OF_ONE if options.get(name)), None):
        told = "is for one model, and an encoder-decoder with past is two"
        raise BadUsage(f"{wanted} {told}; leave it out, or give the plain export of the whole")
    if output is not None and output.suffix == ".onnx":
        raise BadUsage(f"an encoder-decoder with past is two models; give a folder, and not {output}")
    if output is not None:
        check_writable(output)
        if source.resolve().is_relative_to(output.resolve()):
            raise BadInput(f"{output} holds the model to optimize, which is never changed; give another output")


def _gets_cache(artifact: Artifact) -> bool:
    """Whether the decoder gets a better cache than its own: then it must take what the encoder gives, else BadInput.

    That it has no past at all is told later.
    """
    assert artifact.source is not None, "it has two"
    try:
        past = usable_past(load_model(_path(artifact)))
    except Refused:
        return False
    if past is None or past.cross is None:
        return False
    graph = load_model(_path(artifact.source)).graph
    given, taken = {str(v.name) for v in graph.outputs}, {str(v.name) for v in graph.inputs}
    lacking = [f"gives no {name}" for name in past.cross.outputs if name not in given]
    lacking += [f"takes no {name}" for name in past.cross.inputs if name not in taken]
    if lacking:
        raise BadInput(f"{artifact.source.model} {lacking[0]}, as {DECODER} beside it expects; export both together")
    return True
