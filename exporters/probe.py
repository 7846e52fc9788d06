"""Models in memory, run on the CPU, and what any of their tensors holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from onnx import ModelProto, helper, numpy_helper

from dyninfer.engines.ort.runtime import ort, session_options
from dyninfer.types import AnyArray


def open_model(model: ModelProto) -> Any:
    """A session on the CPU; whatever ONNX Runtime raises passes through."""
    return ort.InferenceSession(
        model.SerializeToString(), session_options(False), providers=["CPUExecutionProvider"]
    )


class Probe:
    """Reads tensors of a model, whether they are fed, stored or computed."""

    def __init__(self, model: ModelProto, names: Collection[str]) -> None:
        self._names = names
        self._stored = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.name in names
        }
        fed = {value.name for value in model.graph.input}
        self._computed = sorted(set(names) - fed - self._stored.keys())
        if self._computed:
            shown = ModelProto()
            shown.CopyFrom(model)
            del shown.graph.output[:]
            shown.graph.output.extend(map(helper.make_empty_tensor_value_info, self._computed))
            self._session = open_model(shown)

    def read(self, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """What the tensors hold for these inputs, by name.

        Raises:
            Exception: ONNX Runtime cannot run the model; its exceptions share no base class.
        """
        known = {**inputs, **self._stored}
        if self._computed:
            values = self._session.run(self._computed, dict(inputs))
            known |= dict(zip(self._computed, values, strict=True))
        return {name: known[name] for name in self._names}
