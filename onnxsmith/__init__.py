"""onnxsmith: any PyTorch or ONNX Transformer in; a fast, verified, explained ONNX model out.

The whole public API stands here, and each function is imported when it is first used: ``import onnxsmith`` is
instant, and only ``export`` needs PyTorch.

    export(source, output)       PyTorch module, Hugging Face directory or config name -> ONNX
    optimize(source, output)     any ONNX Transformer -> a faster one, with evidence that it computes the same
    tune(source, shapes)         measure which kernels are fastest on this machine, for optimize to use
    explain(path)                every attention, norm and feed-forward site: fused, or missed and why
    load(path), run(path, feeds) the model on ONNX Runtime, from Python
                                 load(path).embed(texts), load(path).generate(prompts)
    compare(paths)               size, structure, latency and parity of several variants
    verify(source, against)      evidence, part by part, that an optimized model computes what its original does
    bisect(source)               the rewrite that makes a model's results wrong
    reduce(source, output)       a failing model -> the few nodes that fail, and a script that shows it

Errors that a user can mend are `onnxsmith.errors.OnnxsmithError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxsmith.compiler.bisect import bisect
    from onnxsmith.compiler.compare import compare
    from onnxsmith.compiler.explain import explain
    from onnxsmith.compiler.export import export
    from onnxsmith.compiler.optimize import optimize
    from onnxsmith.compiler.recheck import verify
    from onnxsmith.compiler.reduce import reduce
    from onnxsmith.compiler.tune import tune
    from onnxsmith.runtime.model import load

    __version__: str

__all__ = [
    "__version__",
    "bisect",
    "compare",
    "explain",
    "export",
    "load",
    "optimize",
    "reduce",
    "run",
    "tune",
    "verify",
]

_HOMES = {
    "bisect": "onnxsmith.compiler.bisect",
    "compare": "onnxsmith.compiler.compare",
    "explain": "onnxsmith.compiler.explain",
    "export": "onnxsmith.compiler.export",
    "load": "onnxsmith.runtime.model",
    "optimize": "onnxsmith.compiler.optimize",
    "reduce": "onnxsmith.compiler.reduce",
    "tune": "onnxsmith.compiler.tune",
    "verify": "onnxsmith.compiler.recheck",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxsmith' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def run(path: str | Path, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Open the model at ``path`` and run it once on arrays by input name; to run it often, `load` it.

    Raises:
        BadInput: there is no usable model at the path, or an input does not fit it.
    """
    from onnxsmith.runtime.model import load

    return load(path).run(feeds)


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    from importlib.metadata import version

    return version("onnxsmith")
