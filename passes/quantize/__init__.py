"""Quantize: lossy passes, each held to an accuracy budget instead of the parity rule."""
