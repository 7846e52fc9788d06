"""What is timed: the same cascade, run in four ways.

Every contender lives in a process of its own (see :mod:`dyninfer.benchmarks.worker`), so each
module that is heavy is imported by the contender that needs it and by no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Action = Callable[[], object]
IMAGES = "images"
EASY_THRESHOLD = 0.0  # no easiness is below
HARD_THRESHOLD = 2.0  # every easiness is below


class Kind(str, Enum):
    """A way to run the cascade."""

    DYNINFER = "dyninfer"
    IF_OWN_POOL = "if-own-pool"
    IF_SHARED_POOL = "if-shared-pool"
    EAGER = "pytorch-eager"
    EAGER_FOLDED = "pytorch-folded"

    @property
    def is_pytorch(self) -> bool:
        """Whether PyTorch runs it."""
        return self in (Kind.EAGER, Kind.EAGER_FOLDED)


class Side(str, Enum):
    """The exit that an image is made to leave at."""

    EASY = "easy"
    HARD = "hard"


class Call(str, Enum):
    """What belongs to one run.

    ``api`` is the ordinary call, which checks its input and hands out arrays of the caller's own.
    ``engines`` leaves outputs in buffers that are used again, so nothing is copied on either side.
    """

    API = "api"
    ENGINES = "engines"


@dataclass(frozen=True)
class Setup:
    """What a worker opens: ``source`` is a bundle, an ONNX file or a checkpoint."""

    kind: Kind
    source: str
    height: int
    width: int
    cores: int


class Contender(Protocol):
    """An opened cascade."""

    def action(self, side: Side, call: Call) -> Action:
        """A function that runs one image; everything that need not be timed is done before."""
        ...


def open_contender(setup: Setup) -> Contender:
    """Open what ``setup`` describes, in this process."""
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, setup.height, setup.width), np.float32)
    if setup.kind is Kind.DYNINFER:
        return DyninferContender(setup, image)
    if setup.kind.is_pytorch:
        return EagerContender(setup, image)
    return IfContender(setup, image)


class DyninferContender:
    """Separate engines behind the public API, or (``engines``) the pipeline below it."""

    def __init__(self, setup: Setup, image: npt.NDArray[np.float32]) -> None:
        from dyninfer.bundle import Bundle
        from dyninfer.detector import Detector
        from dyninfer.engines import open_backend
        from dyninfer.pipeline import CascadePipeline

        bundle = Bundle.open(setup.source)
        self._pipeline = CascadePipeline(bundle, open_backend("onnxruntime"))
        self._detector = Detector(bundle, self._pipeline, max_batch=1)
        self._image = image

    def action(self, side: Side, call: Call) -> Action:
        """See :class:`Contender`."""
        from dyninfer.policy import AlwaysEasy, AlwaysHard

        policy = AlwaysEasy() if side is Side.EASY else AlwaysHard()

        def run_api() -> None:
            self._detector.policy = policy
            self._detector.infer({IMAGES: self._image})

        def run_engines() -> None:
            with self._pipeline.workspace() as workspace:
                self._pipeline.run(lambda *_: self._image, 1, policy, workspace)

        return run_api if call is Call.API else run_engines


class IfContender:
    """One ONNX graph with an ``If``, in ONNX Runtime with its default session options.

    With ``IF_SHARED_POOL`` it uses the process-wide thread pool; the default is a pool of its
    own. ``engines`` binds input and outputs, so that no array is made for a run.
    """

    def __init__(self, setup: Setup, image: npt.NDArray[np.float32]) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        if setup.kind is Kind.IF_SHARED_POOL:
            ort.set_global_thread_pool_sizes(0, 1)
            options.use_per_session_threads = False
        providers = ["CPUExecutionProvider"]
        self._session: Any = ort.InferenceSession(setup.source, options, providers=providers)
        self._image = image

    def action(self, side: Side, call: Call) -> Action:
        """See :class:`Contender`."""
        value = EASY_THRESHOLD if side is Side.EASY else HARD_THRESHOLD
        inputs = {IMAGES: self._image, "threshold": np.array(value, np.float32)}
        if call is Call.API:
            return lambda: self._session.run(None, inputs)
        binding, arrays = self._session.io_binding(), []
        for name, array in inputs.items():
            _bind(binding.bind_input, name, array)
        for output in self._session.get_outputs():
            arrays.append(np.empty(output.shape, np.float32))
            _bind(binding.bind_output, output.name, arrays[-1])

        def run_bound() -> list[npt.NDArray[np.float32]]:
            self._session.run_with_iobinding(binding)
            return arrays

        return run_bound


def _bind(bind: Callable[..., None], name: str, array: npt.NDArray[np.float32]) -> None:
    bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)


class EagerContender:
    """The PyTorch model, decode included, float32.

    As it comes from the checkpoint, or with batch norm, branches and implicit layers folded into
    the convolutions, as an export does.
    """

    def __init__(self, setup: Setup, image: npt.NDArray[np.float32]) -> None:
        import torch

        from dyninfer.exporters.dynamicdet.export import load_model
        from dyninfer.exporters.dynamicdet.fold import fold
        from dyninfer.exporters.dynamicdet.stages import build_stages, stage_ports

        torch.set_num_threads(setup.cores)
        model = load_model(Path(setup.source))
        self._ports = stage_ports(model.plan)
        if setup.kind is Kind.EAGER_FOLDED:
            model = fold(model)
        self._stages = build_stages(model, (setup.height, setup.width))
        self._image = torch.from_numpy(image)

    def action(self, side: Side, call: Call) -> Action:  # noqa: ARG002  # both calls are one here
        """See :class:`Contender`."""
        threshold = EASY_THRESHOLD if side is Side.EASY else HARD_THRESHOLD
        return lambda: self._run(threshold)

    def _run(self, threshold: float) -> dict[str, Any]:
        import torch

        tensors: dict[str, Any] = {IMAGES: self._image}
        with torch.inference_mode():
            self._run_stage("first", tensors)
            self._run_stage("router", tensors)
            is_easy = float(tensors["easiness"]) >= threshold
            self._run_stage("head" if is_easy else "second", tensors)
        return tensors

    def _run_stage(self, name: str, tensors: dict[str, Any]) -> None:
        port = self._ports[name]
        produced = self._stages[name](*(tensors[input_] for input_ in port.inputs))
        produced = produced if isinstance(produced, tuple) else (produced,)
        tensors.update(zip(port.outputs, produced, strict=True))
