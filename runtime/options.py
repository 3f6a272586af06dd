"""Session options that travel with a model: in the artifact's manifest, or in a plain .onnx file's metadata.

ONNX Runtime fuses again when a session loads; the recorded entries keep the optimizer's choice. A file is
untrusted, and some of the entries name folders and files: only those that steer computation are taken. How work is
split among threads, and whether they wait spinning, steers it too; how many there are, and on which cores, is the
caller's choice, since a file moves between machines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxsmith.errors import BadInput
from onnxsmith.runtime.artifact import Artifact
from onnxsmith.runtime.metadata import read_metadata

METADATA_KEY = "ort_config"
_STEERING = (
    *("optimization.", "mlas.", "session.disable_", "session.qdq", "session.set_denormal_as_zero"),
    *("session.dynamic_block_base", "session.intra_op.allow_spinning", "session.inter_op.allow_spinning"),
)


def steers(key: str) -> bool:
    """Whether a session config entry only steers computation, so that a file may ask for it."""
    return key.startswith(_STEERING)


def encode_config(config: Mapping[str, str]) -> str:
    """Session config entries as the JSON text that goes into a model's metadata under ``ort_config``."""
    return json.dumps({"session_options": dict(config)}, sort_keys=True)


def recorded_config(artifact: Artifact) -> dict[str, str]:
    """Session config entries recorded with a model; empty when none are.

    Raises:
        BadInput: The record is malformed, or has an entry that does more than steer computation.
    """
    if artifact.folder is not None:
        return _checked(artifact.manifest.get("session", {}), "config", artifact.model)
    text = read_metadata(artifact.model).get(METADATA_KEY)
    if text is None:
        return {}
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{artifact.model}: metadata {METADATA_KEY!r} is not JSON; remove it or write it again"
        ) from error
    return _checked(record, "session_options", artifact.model)


def _checked(record: Any, key: str, path: Path) -> dict[str, str]:
    entries = record.get(key, {}) if isinstance(record, dict) else None
    if not isinstance(entries, dict):
        raise BadInput(f"{path}: expected its recorded session options to be a JSON object; write the model again")
    # Names without a dot are ONNX Runtime's own (intra_op_num_threads): the caller's choice, not the file's.
    config = {name: str(value) for name, value in entries.items() if "." in name}
    for name in config:
        if not steers(name):
            raise BadInput(f"{path}: recorded session option {name!r} is not one that onnxsmith sets; remove it")
    return config
