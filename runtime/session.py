"""Opening ONNX Runtime sessions: one provider, quiet, and every refusal as a one-line error.

Models are untrusted. ONNX Runtime (1.31 and later) itself refuses external data outside the model's folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from onnxsmith.errors import BadInput, BadUsage

Provider = Literal["cpu", "cuda"]

PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FATAL = 4
_CUDA_LIBRARY = "libonnxruntime_providers_cuda.so"


def open_session(
    model: str | Path,
    *,
    provider: Provider = "cpu",
    threads: int | None = None,
    optimize: bool = True,
    config: Mapping[str, str] | None = None,
    cuda_graph: bool = False,
) -> ort.InferenceSession:
    """Open an .onnx file on one provider.

    Args:
        model: Path of the .onnx file; external data is looked up in its folder.
        provider: "cpu" or "cuda". There is no fall back from cuda to cpu.
        threads: Threads inside an operator; None leaves it to ONNX Runtime (one per physical core).
        optimize: Graph optimization of ONNX Runtime: True is ORT_ENABLE_ALL, False is ORT_DISABLE_ALL.
        config: Session config entries.
        cuda_graph: Let cuda capture runs that ask for it; see ``runtime/generation/steady.py``.

    Raises:
        BadInput: ONNX Runtime refuses the model, or the provider does not work on this machine.
        BadUsage: The provider is not known, or ``threads`` is less than 1.
    """
    if provider not in PROVIDERS:
        raise BadUsage(f"unknown provider {provider!r}; expected one of {', '.join(PROVIDERS)}")
    if threads is not None and threads < 1:
        raise BadUsage(f"threads must be at least 1, found {threads}")
    if not Path(model).is_file():
        raise BadInput(f"{model}: no such file; expected an .onnx model")
    problem = _prepare_cuda() if provider == "cuda" else ""
    try:
        session = ort.InferenceSession(
            str(model),
            session_options(threads, optimize=optimize, config=config),
            [(PROVIDERS[provider], {"enable_cuda_graph": "1"} if cuda_graph else {})],
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's error classes have no common base
        raise BadInput(f"{model}: ONNX Runtime refuses this model on {provider}: {one_line(error)}") from error
    if PROVIDERS[provider] not in session.get_providers():
        reason = problem or _missing_library()
        raise BadInput(f"{provider} does not work on this machine ({reason}); use cpu, or repair its libraries")
    return session


def one_line(error: BaseException) -> str:
    """An ONNX Runtime error without its prefix ("[ONNXRuntimeError] : 1 : FAIL : ...") and line breaks."""
    text = " ".join(str(error).split())
    return text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text


def session_options(
    threads: int | None = None, *, optimize: bool = True, config: Mapping[str, str] | None = None
) -> ort.SessionOptions:
    """Options of a quiet session; the arguments are those of ``open_session``."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    return options


def graph_options(number: int = -1) -> ort.RunOptions:
    """In a session with CUDA graphs, capture a run as that one, or replay it; by default do neither."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options


def _prepare_cuda() -> str:
    """Load the CUDA libraries; the first failure in words, "" when all were found.

    A provider that cannot load only logs, and the session comes back without it; the reason is printed here.
    """
    ort.set_default_logger_severity(_FATAL)
    talk = io.StringIO()
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(talk):
            ort.preload_dlls()
    return next((line.strip() for line in talk.getvalue().splitlines() if line.startswith("Failed")), "")


def _missing_library() -> str:
    """Why the CUDA provider is not there: what the package lacks, or else the first library that the loader misses."""
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return "this onnxruntime has no CUDA provider: install onnxruntime-gpu[cuda,cudnn] in its place"
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / _CUDA_LIBRARY))
    except OSError as error:
        return one_line(error)
    return "ONNX Runtime does not say why"
