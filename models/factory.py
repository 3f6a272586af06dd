"""A user's own model: ``package.module:factory`` gives a module and says how to export it.

The factory returns ``(module, task)``, with further tasks for parts of the module where it has any, or a module that
has the task as its attribute ``export_task``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

from torch import nn

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.task import ExportTask


def from_factory(spec: str) -> Checkpoint:
    """Import and call the factory. The current folder is searched first, as ``python -m`` does.

    Raises BadInput when the module or factory is missing, fails, or returns something else.
    """
    made = _call(spec)
    if not isinstance(made, tuple):
        made = made, getattr(made, "export_task", None)
    match made:
        case nn.Module() as module, ExportTask() as task, *parts if all(isinstance(p, ExportTask) for p in parts):
            return Checkpoint(module.eval(), task, {}, parts=tuple(parts))
    raise BadInput(f"{spec!r} must return (nn.Module, ExportTask), or a module with an export_task attribute")


def _call(spec: str) -> Any:
    """What the factory returns; what it prints goes to stderr, for stdout is kept for data."""
    module_name, _, attribute = spec.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return getattr(importlib.import_module(module_name), attribute)()
    except Exception as e:  # users' code may raise anything
        reason = next(iter(str(e).splitlines()), "no message")
        raise BadInput(f"cannot load {spec!r}: {type(e).__name__}: {reason}; give package.module:factory") from e
    finally:
        sys.path.remove(here)
