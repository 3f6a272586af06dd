"""Transformer definitions in PyTorch, and the readers of their checkpoints."""
