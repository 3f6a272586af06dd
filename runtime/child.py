"""One run of a model in a process of its own: a crash or an endless loop of the runtime ends there.

``python -m onnxsmith.runtime.child FOLDER`` is the process: it reads what :func:`run_in_child` put into the folder.
Arrays are kept by their place and not by their name, which may hold anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["fine", "refused", "fails", "crashes", "hangs"]
MODEL, INPUTS, OUTPUTS = "model.onnx", "inputs.npz", "outputs.npz"
_SETUP, _FOUND = "setup.json", "found.json"
_SECONDS = 120.0


@dataclass(frozen=True)
class Setup:
    """How a session is made. ``optimize`` False is ORT_DISABLE_ALL, ``config`` are session config entries.

    ``model`` is the file to run, where it is not the one in the folder; ``threads`` are those inside an operator.
    """

    optimize: bool = True
    config: Mapping[str, str] | None = None
    model: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Cost:
    """Seconds until the session stood and of its first run, and the most memory in bytes; None off Linux.

    ``peak_bytes`` counts the process as a whole: Python and the runtime's own libraries take some 60 MB of it.
    """

    open_seconds: float
    first_seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Ran:
    """How a run ended: ``outputs`` by name where all is fine, else what the runtime said.

    "refused" is a model that does not load, "fails" one that loads and raises on these inputs.
    """

    kind: Kind
    outputs: Mapping[str, NDArray[Any]]
    message: str = ""
    cost: Cost | None = None


def run_in_child(
    folder: Path, feeds: Mapping[str, NDArray[Any]] | None, setup: Setup | None = None, seconds: float = _SECONDS
) -> Ran:
    """Run ``folder``/model.onnx on the CPU, without feeds only open it; the folder holds what was given and found."""
    for name in (INPUTS, OUTPUTS, _FOUND):
        (folder / name).unlink(missing_ok=True)
    names = list(feeds or {})
    (folder / _SETUP).write_text(json.dumps({**asdict(setup or Setup()), "names": names, "run": feeds is not None}))
    np.savez(folder / INPUTS, *(feeds or {}).values())
    command = [sys.executable, "-m", "onnxsmith.runtime.child", str(folder)]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Ran("hangs", {}, f"no result after {seconds:g} s")
    found = folder / _FOUND
    if not found.exists():
        signal = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit code {ended.returncode}"
        return Ran("crashes", {}, f"the process ended with {signal}")
    told = json.loads(found.read_text())
    if told["kind"] != "fine" or feeds is None:
        return Ran(told["kind"], {}, told["message"])
    with np.load(folder / OUTPUTS, allow_pickle=False) as arrays:
        outputs = dict(zip(told["names"], (arrays[key] for key in arrays), strict=True))
    return Ran("fine", outputs, cost=Cost(**told["cost"]))


def _main(folder: Path) -> None:
    from onnxsmith.runtime.session import session_options

    setup = json.loads((folder / _SETUP).read_text())

    def tell(kind: Kind, message: str = "", **more: Any) -> None:
        (folder / _FOUND).write_text(json.dumps({"kind": kind, "message": message, **more}))

    import onnxruntime as ort

    options = session_options(setup["threads"], optimize=setup["optimize"], config=setup["config"])
    start = time.perf_counter()
    try:
        session = ort.InferenceSession(setup["model"] or str(folder / MODEL), options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's error classes have no common base
        return tell("refused", str(error))
    opened = time.perf_counter()
    if not setup["run"]:
        return tell("fine")
    with np.load(folder / INPUTS, allow_pickle=False) as arrays:
        feeds = dict(zip(setup["names"], (arrays[key] for key in arrays), strict=True))
    given = time.perf_counter()
    try:
        outputs = session.run(None, feeds)
    except Exception as error:
        return tell("fails", str(error))
    cost = Cost(opened - start, time.perf_counter() - given, _peak())
    np.savez(folder / OUTPUTS, *outputs)
    tell("fine", names=[o.name for o in session.get_outputs()], cost=asdict(cost))


def _peak() -> int | None:
    """The most memory that this process had in use, in bytes: getrusage would count its parent's before the exec."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
