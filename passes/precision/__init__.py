"""Precision: 16-bit floats for weights and activations, and float32 where those would not do."""
