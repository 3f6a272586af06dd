"""What a family makes of a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from onnxsmith.models.names import NameTable
from onnxsmith.models.task import ExportTask


@dataclass(frozen=True)
class Plan:
    """A model before its weights are read: ``module`` is built on the meta device by the caller's context."""

    module: nn.Module
    names: NameTable
    task: ExportTask


@dataclass(frozen=True)
class Family:
    """Checkpoints that one ``architecture`` runs; ``plan`` raises BadInput for a config that it cannot follow."""

    architecture: str
    plan: Callable[[Mapping[str, Any]], Plan]
