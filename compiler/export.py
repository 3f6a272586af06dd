"""From a PyTorch module to an ONNX artifact."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxsmith.compiler.artifact import check_writable, sha256, write_artifact
from onnxsmith.compiler.attention_weights import with_attention_weights
from onnxsmith.compiler.exporters import Exporter, choose_opset, to_onnx
from onnxsmith.compiler.manifest import specs, text_entry, text_files
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.artifact import ABSENT

if TYPE_CHECKING:
    from onnxsmith.models.checkpoint import Checkpoint
    from onnxsmith.models.task import ExportTask


def export(
    source: str,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    task: str | None = None,
    opset: int | None = None,
    exporter: Exporter = "dynamo",
    structure: bool = False,
    allow_pickle: bool = False,
    attention_weights: bool = False,
) -> Path:
    """Export an architecture with a checkpoint, a named config, or a user's factory; returns the output path.

    Args:
        source: "bert" (with ``checkpoint``), a config name such as "bert-base", or "package.module:factory".
        output: a folder to make, or a file that ends with .onnx.
        checkpoint: a Hugging Face folder or a GGUF file, for an architecture.
        task: a part of the model such as "encoder" or "causal-lm-with-past"; None is the whole.
        opset: the ONNX opset to write; None is the exporter's own.
        exporter: "dynamo" (opset 18 or later) or "torchscript" (9 to 20), torch.onnx's newer and older one.
        structure: write the graph alone, for planning; no weights are made or read, so that a model of any size fits.
        allow_pickle: read a checkpoint's pytorch_model.bin where it has no safetensors; only tensors are taken.
        attention_weights: give the weights of each attention too, in opset 23; see ``passes/attention_weights.py``.

    Raises:
        BadInput: torch is not installed, or the source, checkpoint or output cannot be used; or it has no attention.
        BadUsage: an opset or exporter that does not exist, a checkpoint for what is no architecture, a task that the
            model does not have, or a structure of a factory, by torchscript, or in a plain .onnx file.
    """
    choose_opset(exporter, opset)
    if structure and exporter != "dynamo":
        raise BadUsage(f"a structure is exported by dynamo; the {exporter} exporter has to run the model")
    output = Path(output)
    check_writable(output, absent=structure)
    found = _load(source, checkpoint, allow_pickle, structure).for_task(task)
    model = to_onnx(found, exporter, opset)
    if attention_weights:
        model = with_attention_weights(model)
    manifest = {**_manifest(source, found, model), "exporter": exporter} | ({"weights": ABSENT} if structure else {})
    write_artifact(output, model, manifest, text_files(found.text))
    return output


def _load(source: str, checkpoint: str | Path | None, allow_pickle: bool, structure: bool) -> Checkpoint:
    try:
        from onnxsmith.models import checkpoint as checkpoints
        from onnxsmith.models import factory, registry
        from onnxsmith.models.families import ARCHITECTURES
    except ModuleNotFoundError as e:
        raise BadInput(f"export needs {e.name}, which is not installed: pip install 'onnxsmith[torch]'") from e
    if source in ARCHITECTURES:
        if checkpoint is None:
            raise BadInput(f"{source!r} needs --checkpoint FOLDER, or FILE.gguf; or name a config such as bert-base")
        return checkpoints.load_checkpoint(
            checkpoint, architecture=source, allow_pickle=allow_pickle, structure=structure
        )
    if checkpoint is not None:
        known = ", ".join(ARCHITECTURES)
        raise BadUsage(f"a checkpoint goes with an architecture ({known}); {source!r} is none")
    if ":" not in source:
        return registry.build(source, structure=structure)
    if structure:
        raise BadUsage(f"{source!r} makes its own weights; a structure needs a config name or an architecture")
    return factory.from_factory(source)


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
        "outputs": [spec.to_json() for spec in task.outputs] + _weights(model, task),
        "bounds": dict(task.bounds),
        "max_length": found.max_length,
        "vocab_size": found.config.get("vocab_size"),
        **({"generation": dict(found.generation)} if found.generation else {}),
        **_labels(found),
        **text_entry(found.text),
    }


def _weights(model: ir.Model, task: ExportTask) -> list[dict[str, Any]]:
    """The outputs beside the task's, which are weights of attention."""
    own = {spec.name for spec in task.outputs}
    return specs(v for v in model.graph.outputs if v.name not in own)


def _labels(found: Checkpoint) -> dict[str, Any]:
    """Of a classifier: the names of its classes, and what its scores mean where the checkpoint says so."""
    if found.task.name != "classify":
        return {}
    names = found.config.get("id2label")
    (count,) = found.task.outputs[0].dims[1:]
    known = names if isinstance(names, dict) else {}
    labels = [str(known.get(str(n), f"LABEL_{n}")) for n in range(int(count))]
    problem = found.config.get("problem_type")
    return {"labels": labels, **({"problem_type": problem} if isinstance(problem, str) else {})}


def _digests(paths: tuple[Path, ...]) -> str | dict[str, str] | None:
    """One digest for one file of weights, one by name for each of several shards."""
    if len(paths) > 1:
        return {path.name: sha256(path) for path in paths}
    return sha256(paths[0]) if paths else None
