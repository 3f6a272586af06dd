"""Steps of fixed shapes on memory that stays: ids [B, 1], positions [B, 1] and a mask as wide as the buffers.

On CUDA, where a session was opened for it, ONNX Runtime captures such a step as a CUDA graph and replays it, which
costs one launch in place of one for each kernel. Inputs are written in place; the output's memory is that of the first
run, which is not captured. Sources: ONNX Runtime's CUDA provider options (enable_cuda_graph, gpu_graph_id).

Shapes: B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.runtime.generation.buffers import DeviceCache
from onnxsmith.runtime.session import Provider, graph_options

Array = NDArray[Any]


@dataclass
class _Step:
    """What is bound for the steps on some buffers, which keeps them alive."""

    number: int
    buffers: list[ort.OrtValue]
    binding: ort.IOBinding
    inputs: dict[str, ort.OrtValue]
    output: ort.OrtValue | None = None


class SteadySteps:
    """Runs steps; one is captured for each output and each pair of buffers that stays."""

    def __init__(self, session: ort.InferenceSession, device: Provider) -> None:
        self._session, self._device = session, device
        self._steps: dict[tuple[int, str], _Step] = {}
        self._captured = 0

    def run(self, feeds: dict[str, Array], output: str, cache: DeviceCache) -> Array:
        """What the step gives for inputs of the same shapes as on those buffers before; the next run may change it."""
        key = id(cache.values), output
        step = self._steps.get(key)
        if step is None:
            self._forget(cache)
            step = self._steps[key] = self._bound(feeds, output, cache)
        else:
            for name, array in feeds.items():
                step.inputs[name].update_inplace(array)
        if step.output is None:
            self._session.run_with_iobinding(step.binding, graph_options())
            step.output = step.binding.get_outputs()[0]
            step.binding.bind_ortvalue_output(output, step.output)
        else:
            self._session.run_with_iobinding(step.binding, graph_options(step.number))
        found: Array = step.output.numpy()
        return found

    def _bound(self, feeds: dict[str, Array], output: str, cache: DeviceCache) -> _Step:
        binding = self._session.io_binding()
        inputs = {name: ort.OrtValue.ortvalue_from_numpy(array.copy(), self._device) for name, array in feeds.items()}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(output, self._device)
        cache.bind(binding, 0)
        self._captured += 1
        return _Step(self._captured, cache.values, binding, inputs)

    def _forget(self, cache: DeviceCache) -> None:
        """Let go of graphs on buffers that are no longer kept."""
        kept = {id(values) for values in cache.kept}
        for key in [key for key in self._steps if key[0] not in kept]:
            self._session.release_captured_graph(self._steps.pop(key).number)
