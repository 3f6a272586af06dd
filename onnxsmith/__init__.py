"""onnxsmith: a Transformer graph compiler and ONNX export toolchain."""
