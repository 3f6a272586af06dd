"""The kernels of ONNX Runtime's CUDA provider.

Types are those of ``docs/OperatorKernels.md`` in ONNX Runtime's repository (CUDAExecutionProvider, at the newest opset
that onnxsmith emits). Nothing here has been timed: a cost of None says so, and ``source`` gives the reason why the
operator is chosen, read from the kernels' source (``onnxruntime/contrib_ops/cuda/bert``) between 1.29 and 1.31.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxsmith.passes.lower.kernels import MICROSOFT, Kernel, Kernels

_F16 = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
_ALL = _F16 | {ir.DataType.BFLOAT16}
_NARROW = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_TABLE = "OperatorKernels.md"

_CHOSEN = (
    Kernel(MICROSOFT, "SkipLayerNormalization", _ALL, None, "one launch for bias, residual and norm; sums in float32"),
    Kernel(MICROSOFT, "SkipSimplifiedLayerNormalization", _ALL, None, "one launch for bias, residual and norm"),
    Kernel(MICROSOFT, "EmbedLayerNormalization", _F16, None, "one launch for three look-ups, two sums and a norm"),
    Kernel(MICROSOFT, "BiasGelu", _ALL, None, "one pass over memory instead of two"),
    Kernel(MICROSOFT, "FastGelu", _ALL, None, "one pass over memory instead of two"),
    Kernel(MICROSOFT, "QuickGelu", _ALL, None, "one pass over memory instead of three"),
    Kernel(MICROSOFT, "Attention", _ALL, None, "attention.cc: queries, keys and values in one product, its bias fused"),
    Kernel(MICROSOFT, "MultiHeadAttention", _ALL, None, "multihead_attention.cc: flash where no mask is added"),
    Kernel(MICROSOFT, "GroupQueryAttention", _NARROW, None, "group_query_attention.cc: nothing is repeated"),
)

# ONNX's own operators: where a value flows that a precision pass narrows, the operators must be here to follow.
_EVERY_FLOAT = (
    "Add Attention Cast Concat Conv Div Erf Exp Expand Flatten Gather GatherElements Gelu Gemm Identity "
    "LayerNormalization MatMul Max Min Mul Neg Pow RMSNormalization ReduceSum Relu Reshape RotaryEmbedding Shape "
    "Sigmoid SimplifiedLayerNormalization Slice Softmax Split Sqrt Squeeze Sub Sum Tanh TensorScatter Tile Transpose "
    "Trilu Unsqueeze Where"
)
_NO_BFLOAT16 = (
    "Ceil Clip Cos CumSum Einsum Elu Equal Floor Greater GreaterOrEqual LeakyRelu Less LessOrEqual Log LogSoftmax "
    "OneHot Pad Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare Round Selu Sin "
    "Softplus"
)
_STANDARD = (
    *(Kernel("", name, _ALL, None, _TABLE) for name in _EVERY_FLOAT.split()),
    *(Kernel("", name, _F16, None, _TABLE) for name in _NO_BFLOAT16.split()),
)

CUDA = Kernels("cuda", {(k.domain, k.op_type): k for k in (*_CHOSEN, *_STANDARD)})
