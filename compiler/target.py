"""What runs where: the kernels that lowering may choose from, with their limits and costs.

Each entry says where it comes from; those of CUDA are in ``kernels_cuda.py``. Types were read from ONNX Runtime's own
kernel registry (1.31.1, CPU provider); costs are medians of interleaved runs on 2 cores with AVX-512, relative to the
operators that the entry replaces.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.compiler.kernels_cuda import CUDA
from onnxsmith.errors import BadUsage
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernel, Kernels

_F32 = frozenset({ir.DataType.FLOAT})
_F32_F16 = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
_NORMS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})

_CPU = (
    Kernel("", "Attention", _F32_F16, 0.72, "hidden 384, 12 heads, batch 1, 128 tokens: 415 us against 577 us"),
    Kernel("", "LayerNormalization", _NORMS, 0.2, "against SkipLayerNormalization, which adds the residual too"),
    Kernel("", "RMSNormalization", _NORMS, 0.7, "with Add against SkipSimplifiedLayerNormalization: 90 us, 125 us"),
    Kernel("", "Gelu", _F32, 0.9, "Add + Gelu against BiasGelu: 140 us against 164 us on [128, 3072]"),
    Kernel(MICROSOFT, "BiasGelu", _F32, 1.2, "against Add + Gelu: 198 us against 156 us on [32, 3072]"),
    Kernel(MICROSOFT, "FastGelu", _F32, 0.95, "against Add + Gelu (tanh): level up to 128 rows, 0.86x on [512, 3072]"),
    Kernel(MICROSOFT, "QuickGelu", _F32, 0.5, "one pass over memory instead of three"),
    Kernel(MICROSOFT, "MatMulIntegerToFloat", _F32, 0.3, "[128, 384] x [384, 1536]: 411 us against 1317 us"),
    Kernel(
        MICROSOFT,
        "MatMulNBits",
        _F32,
        0.2,
        "[1, 768] x [768, 3072] in 4 or 8 bits: 22 to 31 us against 177 us; a decoder's step (hidden 576, 30 layers, "
        "4 bits in blocks of 32) takes 1.08x with zero points, 0.9x in blocks of 128, 1.2x with float32 activations, "
        "0.98x with gate and up as one product, 0.9x with the head in 4 bits too, 1.25x all in 8 bits",
    ),
    Kernel(MICROSOFT, "GatherBlockQuantized", _F32, 1.0, "a few rows of a table; it is there for the bytes"),
    Kernel(MICROSOFT, "EmbedLayerNormalization", _F32, 1.2, "70 us against 57 us on [32, 768], ids cast to int32"),
    Kernel(MICROSOFT, "SkipLayerNormalization", _F32_F16, 5.0, "220 us against 46 us for Add + LayerNormalization"),
    Kernel(
        MICROSOFT,
        "SkipSimplifiedLayerNormalization",
        _F32_F16,
        1.4,
        "125 us against 90 us on [128, 768]; no gain on one row of 576 either, nor in a decoder's whole step (1.0x)",
    ),
    Kernel(MICROSOFT, "Attention", _F32, 1.5, "2116 us against 1396 us for three products and Attention, [128, 768]"),
    Kernel(
        MICROSOFT,
        "GroupQueryAttention",
        _F32,
        2.6,
        "causal, 512 tokens without a cache: 6687 us against 2567 us for Attention; appending in place it takes 0.4x, "
        "and with a sink (see passes/lower/sinks.py) 0.43x of that for a prompt of 512; "
        "reading q, k and v from one product, a decoder's step takes 0.94x in 4 bits, 0.98x in float32",
    ),
    Kernel(MICROSOFT, "MultiHeadAttention", _F32, 1.35, "with a padding mask, 561 us against 415 us for Attention"),
)

# ONNX Runtime fuses once more when a session loads, into kernels that the table above knows to be slower.
# Weights stay prepacked: session.disable_prepacking saves a copy of them, but a step in float32 then takes 1.14x.
# The softmax's exponential of a masked score passes through denormal numbers, each of them many times slower: flushed
# to zero, GPT-2 at 1 x 384 takes 0.92x, BERT-base half of whose positions are padding 0.93x, and no model longer.
_CPU_SESSION = {
    "optimization.disable_specified_optimizers": "SkipLayerNormFusion;BiasSkipLayerNormFusion;BiasGeluFusion",
    "session.set_denormal_as_zero": "1",
}


@dataclass(frozen=True)
class Target:
    """A provider of ONNX Runtime with its kernel table and the session options that keep lowering's choices.

    ``kernels`` is None for the portable target, which stops at standard operators.
    """

    name: str
    kernels: Kernels | None
    precisions: tuple[str, ...]
    session: dict[str, str]


QUANTIZED = ("int8", "int8-weights", "int4")  # precisions that the weights' own numbers are needed for

TARGETS = {
    "cpu": Target("cpu", Kernels("cpu", {(k.domain, k.op_type): k for k in _CPU}), ("fp32", *QUANTIZED), _CPU_SESSION),
    "cuda": Target("cuda", CUDA, ("fp32", "fp16", "bf16"), {}),
    "onnx": Target("onnx", None, ("fp32",), {}),
}


def target(name: str, precision: str) -> Target:
    """The target of that name. Raises BadUsage when there is none, or when it lacks the precision."""
    if name not in TARGETS:
        raise BadUsage(f"no target {name!r}; choose one of {', '.join(TARGETS)}")
    found = TARGETS[name]
    if precision not in found.precisions:
        raise BadUsage(f"target {name} has no precision {precision!r}; choose one of {', '.join(found.precisions)}")
    return found
