"""A user's own model: ``package.module:factory`` gives a module and says how to export it.

The factory returns ``(module, task)``, or a module that has the task as its attribute ``export_task``.
"""

from __future__ import annotations

import importlib
import os
import sys

from torch import nn

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.task import ExportTask


def from_factory(spec: str) -> Checkpoint:
    """Import and call the factory. The current folder is searched first, as ``python -m`` does.

    Raises BadInput when the module or factory is missing, fails, or returns something else.
    """
    module_name, _, attribute = spec.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
        made = factory()
    except (ImportError, AttributeError) as e:
        raise BadInput(f"cannot load {spec!r}: {e}; give package.module:factory") from e
    finally:
        sys.path.pop(0)
    module, task = made if isinstance(made, tuple) and len(made) == 2 else (made, getattr(made, "export_task", None))
    if not isinstance(module, nn.Module) or not isinstance(task, ExportTask):
        raise BadInput(f"{spec!r} must return (nn.Module, ExportTask), or a module with an export_task attribute")
    return Checkpoint(module.eval(), task, {})
