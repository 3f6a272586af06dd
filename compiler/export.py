"""From a PyTorch module to an ONNX artifact, by torch.onnx's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxsmith.compiler.artifact import check_writable, sha256, write_artifact
from onnxsmith.errors import BadInput, BadUsage

if TYPE_CHECKING:
    import torch

    from onnxsmith.models.checkpoint import Checkpoint
    from onnxsmith.models.task import ExportTask, TensorSpec

# The exporter's native opset: what it writes there needs no conversion, and every runtime in use reads it.
OPSET = 18
_EXAMPLE_SIZES = {"batch": 2, "sequence": 7}  # neither 0 nor 1, which torch.export would take for constants
_OTHER_SIZE = 5


def export(
    source: str,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    opset: int = OPSET,
    allow_pickle: bool = False,
) -> Path:
    """Export an architecture with a checkpoint, a named config, or a user's factory; returns the output path.

    Args:
        source: "bert" (with ``checkpoint``), a config name such as "bert-base", or "package.module:factory".
        output: a folder to make, or a file that ends with .onnx.
        checkpoint: a Hugging Face folder, for an architecture.
        opset: the ONNX opset to write, 18 or later.
        allow_pickle: read a checkpoint's pytorch_model.bin where it has no safetensors; only tensors are taken.

    Raises:
        BadInput: torch is not installed, or the source, checkpoint or output cannot be used.
        BadUsage: an opset below 18, or a checkpoint for what is no architecture.
    """
    if opset < OPSET:
        raise BadUsage(f"no opset {opset}; the exporter writes {OPSET} or later")
    output = Path(output)
    check_writable(output)
    found = _load(source, checkpoint, allow_pickle)
    model = to_onnx(found, opset)
    sidecars = [found.tokenizer] if found.tokenizer else []
    write_artifact(output, model, _manifest(source, found, model), sidecars)
    return output


def _load(source: str, checkpoint: str | Path | None, allow_pickle: bool) -> Checkpoint:
    try:
        from onnxsmith.models import checkpoint as checkpoints
        from onnxsmith.models import factory, registry
        from onnxsmith.models.families import ARCHITECTURES
    except ModuleNotFoundError as e:
        raise BadInput(f"export needs {e.name}, which is not installed: pip install 'onnxsmith[torch]'") from e
    if source in ARCHITECTURES:
        if checkpoint is None:
            raise BadInput(f"{source!r} needs --checkpoint FOLDER; or name a config such as bert-base")
        return checkpoints.load_checkpoint(checkpoint, architecture=source, allow_pickle=allow_pickle)
    if checkpoint is not None:
        known = ", ".join(ARCHITECTURES)
        raise BadUsage(f"a checkpoint goes with an architecture ({known}); {source!r} is none")
    return factory.from_factory(source) if ":" in source else registry.build(source)


def to_onnx(found: Checkpoint, opset: int = OPSET) -> ir.Model:
    """The module as an ONNX model in memory; its weights are shared with the module, not copied."""
    import torch

    task = found.task
    with _quiet(), torch.no_grad():  # with gradients, attention is taken apart in two ways that do not fit together
        try:
            program = torch.onnx.export(
                found.module,
                tuple(_example(spec, task.bounds) for spec in task.inputs),
                dynamo=True,
                opset_version=opset,
                input_names=[spec.name for spec in task.inputs],
                output_names=[spec.name for spec in task.outputs],
                dynamic_shapes=_dynamic(task),
                verbose=False,
            )
        except Exception as e:  # the exporter wraps what user code raises in types of its own
            raise BadInput(f"torch.onnx cannot export the model: {_root_cause(e)}") from e
    assert program is not None
    if (written := program.model.opset_imports[""]) != opset:
        raise BadInput(f"torch.onnx cannot write opset {opset}, only {written}; give a lower one")
    return program.model


def _example(spec: TensorSpec, bounds: Mapping[str, int]) -> torch.Tensor:
    import torch

    sizes = [d if isinstance(d, int) else _EXAMPLE_SIZES.get(d, _OTHER_SIZE) for d in spec.dims]
    shape = [min(size, bounds.get(str(d), size)) for size, d in zip(sizes, spec.dims, strict=True)]
    return torch.ones(shape, dtype=getattr(torch, spec.dtype))


def _dynamic(task: ExportTask) -> tuple[dict[int, Any], ...]:
    """For each input, the named dimensions by position; equal names mean equal sizes."""
    import torch

    names = {d for spec in task.inputs for d in spec.dims if isinstance(d, str)}
    dims = {name: torch.export.Dim(name, max=task.bounds.get(name)) for name in names}
    return tuple({i: dims[d] for i, d in enumerate(s.dims) if isinstance(d, str)} for s in task.inputs)


def _root_cause(error: BaseException) -> str:
    """What went wrong at first, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks on stdout and through warnings and logs; none of it helps our users."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _manifest(source: str, found: Checkpoint, model: ir.Model) -> dict[str, Any]:
    task = found.task
    return {
        "format": 1,
        "onnxsmith": version("onnxsmith"),
        "task": task.name,
        "source": {"name": source, "sha256": _digests(found.weights)},
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxscript")},
        "opset": model.opset_imports[""],
        "inputs": [spec.to_json() for spec in task.inputs],
        "outputs": [spec.to_json() for spec in task.outputs],
        "bounds": dict(task.bounds),
        "tokenizer": found.tokenizer.name if found.tokenizer else None,
        "max_length": found.max_length,
    }


def _digests(paths: tuple[Path, ...]) -> str | dict[str, str] | None:
    """One digest for one file of weights, one by name for each of several shards."""
    if len(paths) > 1:
        return {path.name: sha256(path) for path in paths}
    return sha256(paths[0]) if paths else None
