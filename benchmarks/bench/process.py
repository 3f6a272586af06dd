"""The driver's side of a worker: ask and answer; between its turns the process is stopped and burns nothing.

Engines keep their threads spinning for a while after a run, each in its own way: SIGSTOP ends that for all alike.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any

from benchmarks.bench.engines import ROOT, Engine

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
_SECONDS = 900  # torch.compile, and NNCF's calibration, take minutes


class Broken(Exception):
    """The worker has died, answers nothing, or says why it cannot; the message is for the report."""


class Worker:
    """A running engine. What it prints goes to ``log``. Making one raises Broken when the model does not load."""

    module = "benchmarks.bench.worker"  # the program that runs in the process

    def __init__(self, engine: Engine, folder: Path, threads: int, log: IO[bytes]) -> None:
        words = [engine.python, "-m", self.module, engine.adapter, engine.variant, folder, threads]
        numbers = {name: str(threads) for name in _THREADS}
        self.engine = engine
        self._process = subprocess.Popen(
            list(map(str, words)),
            cwd=ROOT,
            env={**os.environ, **numbers, "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            self._answer()
        except Broken:
            self.close()
            raise
        self._process.send_signal(signal.SIGSTOP)

    def set_shape(self, batch: int, length: int, output: Path) -> dict[str, Any]:
        """Prepare for a shape and save some of the output: "seconds" of one run, "flops" where the engine knows."""
        return self._ask({"shape": [batch, length], "output": str(output)})

    def run(self, times: int, warm: int) -> list[float]:
        """Seconds of each of ``times`` runs after ``warm`` untold ones."""
        return list(self._ask({"run": times, "warm": warm})["seconds"])

    def close(self) -> None:
        """End the process, stopped or not; a second call does nothing."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, content: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(content).encode() + b"\n")
            self._process.stdin.flush()
            return self._answer()
        except BrokenPipeError:
            raise Broken("the process died") from None
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def _answer(self) -> dict[str, Any]:
        stdout, text, end = self._process.stdout, b"", time.monotonic() + _SECONDS
        assert stdout is not None
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise Broken(f"no answer in {_SECONDS} seconds")
            piece = os.read(stdout.fileno(), 1 << 16)
            if not piece:
                raise Broken(f"the process died (exit code {self._process.wait()})")
            text += piece
        answer: dict[str, Any] = json.loads(text)
        if "why" in answer:
            raise Broken(answer["why"])
        return answer
