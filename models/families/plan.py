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
    """A model before its weights are read: ``module`` is built on the meta device by the caller's context.

    The first of ``tasks`` is the whole model, the others are parts of it.
    """

    module: nn.Module
    names: NameTable
    tasks: tuple[ExportTask, ...]

    @property
    def task(self) -> ExportTask:
        """What the whole model does."""
        return self.tasks[0]


@dataclass(frozen=True)
class Family:
    """Checkpoints that one ``architecture`` runs; ``plan`` raises BadInput for a config that it cannot follow."""

    architecture: str
    plan: Callable[[Mapping[str, Any]], Plan]
