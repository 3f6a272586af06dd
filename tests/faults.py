"""Making one step of a write fail, or end the process, on purpose."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

# Whatever touches the disk when an artifact is written.
POINTS: tuple[tuple[Any, str], ...] = (
    (os, "rename"),
    (os, "replace"),
    (os, "fsync"),
    (tempfile, "mkdtemp"),
    (Path, "mkdir"),
    (Path, "write_bytes"),
    (Path, "write_text"),
    (ir.Tensor, "tofile"),
)


class Fault:
    """Counts the steps and acts before the one numbered ``at`` (from 1), or before every step from there on."""

    def __init__(self, at: int, act: Callable[[], object], *, lasting: bool = False) -> None:
        self.at, self.act, self.lasting = at, act, lasting
        self.steps = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for owner, name in POINTS:
            patch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            self.steps += 1
            if self.steps == self.at or (self.lasting and self.steps > self.at):
                self.act()
            return call(*args, **options)

        return step
