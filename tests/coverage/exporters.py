"""The columns of the matrix: torch.onnx's two exporters, opset by opset."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exporter:
    """One way to export; ``optimize`` is the dynamo exporter's own optimization."""

    name: str
    opset: int
    dynamo: bool
    optimize: bool = True

    def takes(self, attention: str) -> bool:
        """TorchScript has scaled_dot_product_attention from opset 14."""
        return self.dynamo or self.opset >= 14 or attention == "eager"


EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        *(Exporter(f"dynamo-{opset}", opset, dynamo=True) for opset in (18, 20, 23, 24, 25)),
        Exporter("dynamo-18-raw", 18, dynamo=True, optimize=False),
        *(Exporter(f"torchscript-{opset}", opset, dynamo=False) for opset in (13, 14, 17, 20)),
    )
}
