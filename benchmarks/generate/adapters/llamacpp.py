"""llama.cpp, called by its C interface, on files that its own quantizer makes of the package's GGUF file."""

from __future__ import annotations

import ctypes
import time
from importlib.metadata import version
from pathlib import Path

import llama_cpp

from benchmarks.generate.adapters import Generate, Ids, Said

_TYPES = {"f32": llama_cpp.LLAMA_FTYPE_ALL_F32, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
_MOST = 4  # rows
_CONTEXT = 2048  # tokens of all rows together


def open_engine(folder: Path, variant: str, threads: int) -> Generate:
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(_file(folder, variant)).encode(), _model_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_seq_max = _MOST * _CONTEXT, _MOST
    params.n_batch = params.n_ubatch = _CONTEXT
    params.n_threads = params.n_threads_batch = threads
    return _Engine(llama_cpp.llama_init_from_model(model, params))


def _model_params() -> llama_cpp.llama_model_params:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    return params


class _Engine:
    """A context; each row is a sequence of its own, and the best token is taken by llama.cpp's own sampler."""

    def __init__(self, context: llama_cpp.llama_context_p) -> None:
        self._context = context
        self._sampler = llama_cpp.llama_sampler_init_greedy()
        self._batch = llama_cpp.llama_batch_init(_MOST * _CONTEXT, 0, 1)

    def __call__(self, prompts: Ids, new: int, beams: int) -> Said:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        ids: list[list[int]] = [[] for _ in prompts]
        start = time.perf_counter()
        self._read(prompts, 0, ids)
        first = time.perf_counter() - start
        for step in range(new - 1):
            self._read([row[-1:] for row in ids], len(prompts[0]) + step, ids)
        return Said(ids, first, time.perf_counter() - start)

    def _read(self, tokens: Ids, position: int, ids: list[list[int]]) -> None:
        """Read more tokens of each row, as many of one as of another, and add the best next one to its ids."""
        batch, n = self._batch, 0
        ends = []
        for row, some in enumerate(tokens):
            for offset, token in enumerate(some):
                batch.token[n], batch.pos[n], batch.n_seq_id[n] = token, position + offset, 1
                batch.seq_id[n][0], batch.logits[n] = row, offset == len(some) - 1
                n += 1
            ends.append(n - 1)
        batch.n_tokens = n
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        for row, end in zip(ids, ends, strict=True):
            row.append(llama_cpp.llama_sampler_sample(self._sampler, self._context, end))


def _file(folder: Path, variant: str) -> Path:
    made = folder / f"llama-{variant}-{version('llama-cpp-python')}.gguf"
    if not made.exists():
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.allow_requantize = _TYPES[variant], True
        making = made.with_name("making-" + made.name)
        failed = llama_cpp.llama_model_quantize(
            str(folder / "source.gguf").encode(), str(making).encode(), ctypes.byref(params)
        )
        if failed:
            raise RuntimeError("llama_model_quantize failed")
        making.rename(made)
    return made
