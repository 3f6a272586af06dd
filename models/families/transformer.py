"""The paper's Transformer. Hugging Face has no such model: config.json and tensors have our own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxsmith.models.config import read_config
from onnxsmith.models.families.plan import Plan
from onnxsmith.models.names import NameTable
from onnxsmith.models.parts import seq2seq_tasks
from onnxsmith.models.transformer import Transformer, TransformerConfig


def plan(config: Mapping[str, Any]) -> Plan:
    """The translator that a config with the fields of ``TransformerConfig`` asks for. Raises BadInput for none such."""
    sizes = read_config(TransformerConfig, config, positions=config.get("positions", "sinusoidal"))
    tasks = seq2seq_tasks(sizes.vocab_size, sizes.d_model, sizes.cache)
    return Plan(Transformer(sizes), NameTable({r"(.*)": r"\1"}), tasks)
