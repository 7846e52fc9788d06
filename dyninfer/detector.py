"""The object that applications hold: a bundle, opened on a device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from dyninfer.batches import check_inputs, detect_batch, infer_batch
from dyninfer.bundle import Bundle
from dyninfer.engines import open_backend
from dyninfer.engines.base import Engine
from dyninfer.errors import InputError
from dyninfer.images import check_image, read_image
from dyninfer.manifest import Manifest, Task
from dyninfer.pipeline import CascadePipeline
from dyninfer.policy import AlwaysHard, Policy, Threshold
from dyninfer.postprocess import Postprocess
from dyninfer.types import Detections, ImageArray, RawOutput

ImageLike = str | os.PathLike[str] | npt.NDArray[Any]
DEFAULT_THRESHOLD = 0.5
DEFAULT_BATCH = 8


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    backend: str | None = None,
    provider: str | None = None,
    max_batch: int = DEFAULT_BATCH,
    shared_threads: bool = False,
) -> Detector:
    """Open a bundle.

    Args:
        path: the bundle's folder, ``NAME.dyn``.
        device: ``"cpu"`` or ``"cuda:0"``.
        backend: ``"onnxruntime"``, or None for the best one available.
        provider: ONNX Runtime's execution provider, ``"cpu"``, ``"cuda"`` or ``"tensorrt"``;
            None takes the device's own.
        max_batch: longer lists of images are run in batches of this size.
        shared_threads: let all ONNX Runtime sessions of the process share one pool of threads,
            worth it where many bundles are open at once. From then on ONNX Runtime refuses
            sessions that the application opens itself with default options; they need
            ``SessionOptions.use_per_session_threads = False``. Where the application has set up
            such a pool itself, it is used in any case.

    Raises:
        BundleError: the bundle is incomplete, changed, or from a later version.
        BackendUnavailable: backend, device or provider is not there.
    """
    if not isinstance(max_batch, int) or max_batch < 1:
        raise InputError(f"max_batch is {max_batch!r}, expected a whole number from 1 up")
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"a bundle is {type(path).__name__}, expected the path of a folder")
    bundle = Bundle.open(Path(os.fspath(path)))
    pipeline = CascadePipeline(bundle, open_backend(backend, device, provider, shared_threads))
    return Detector(bundle, pipeline, max_batch)


class Detector:
    """A dynamic detector: call it with images, move :attr:`policy` at any time.

    Safe to call from several threads at once. Use it as a context manager, or call
    :meth:`close`, to free its engines.
    """

    def __init__(self, bundle: Bundle, pipeline: CascadePipeline, max_batch: int) -> None:
        self.bundle = bundle
        self._pipeline = pipeline
        self._max_batch = max_batch
        routed = bundle.manifest.has_routers and len(bundle.manifest.exits) > 1
        self._policy: Policy = Threshold(DEFAULT_THRESHOLD) if routed else AlwaysHard()

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def backend(self) -> str:
        """Name of the backend, for example ``onnxruntime``."""
        return self._pipeline.backend.name

    @property
    def device(self) -> str:
        """The device the engines run on, for example ``cpu`` or ``cuda:0``."""
        return self._pipeline.backend.device

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every class id."""
        return self.manifest.class_names

    @property
    def engines(self) -> Mapping[str, Engine[Any, Any]]:
        """The opened stages by name, with their counters."""
        return self._pipeline.engines

    @property
    def nan_easiness_count(self) -> int:
        """How many images were treated as hard because their easiness was NaN."""
        return self._pipeline.nan_easiness_count

    @property
    def policy(self) -> Policy:
        """How images are routed; a new one takes effect at the next batch, in every thread.

        Raises:
            PolicyError: on setting one that this bundle cannot follow.
        """
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        if isinstance(policy, type) or not isinstance(policy, Policy):
            raise InputError(
                f"policy is {policy!r}, expected Threshold(0.5), AlwaysEasy() or AlwaysHard()"
            )
        self._pipeline.check_policy(policy)
        self._policy = policy

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str to mypy
        self, images: ImageLike, *, options: Postprocess | None = None
    ) -> Detections: ...

    @overload
    def __call__(
        self, images: Sequence[ImageLike], *, options: Postprocess | None = None
    ) -> list[Detections]: ...

    def __call__(
        self, images: ImageLike | Sequence[ImageLike], *, options: Postprocess | None = None
    ) -> Detections | list[Detections]:
        """Detect objects.

        Args:
            images: a path or an (h, w, 3) uint8 BGR array, or a list of either.
            options: thresholds of the postprocessing; None for the defaults of
                :class:`dyninfer.Postprocess`.

        Returns:
            One :class:`dyninfer.Detections` for one image, a list in input order for a list.

        Raises:
            InputError: an image cannot be used; the message says which and why.
        """
        self._pipeline.check_open()
        if self.manifest.task is not Task.DETECT:
            raise InputError(f"{self.manifest.name} classifies; use infer for its logits")
        options = options or Postprocess()
        if isinstance(images, (str, os.PathLike, np.ndarray)):
            return detect_batch(self._pipeline, [_load(images)], self._policy, options)[0]
        if not isinstance(images, Sequence):
            raise InputError(
                f"images is {type(images).__name__}, expected a path, an array, or a list of them"
            )
        found: list[Detections] = []
        for start in range(0, len(images), self._max_batch):
            batch = [
                _load_numbered(image, start + offset, len(images))
                for offset, image in enumerate(images[start : start + self._max_batch])
            ]
            found += detect_batch(self._pipeline, batch, self._policy, options)
        return found

    def stream(
        self, images: Iterable[ImageLike], *, options: Postprocess | None = None
    ) -> Iterator[Detections]:
        """Detect objects in images one after the other, as they come."""
        for image in images:
            yield self(image, options=options)

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]]) -> list[RawOutput]:
        """Run prepared tensors, without pre- and postprocessing.

        Args:
            inputs: image input's name -> (N, 3, H, W) float32, prepared as its ImageSpec says;
                for a DynamicDet bundle ``{"images": batch}`` with RGB values in [0, 1].

        Returns:
            One :class:`dyninfer.RawOutput` per image, in order.

        Raises:
            InputError: an input is missing, unknown, of another shape or dtype, or holds NaN.
        """
        batch = check_inputs(self.manifest, inputs)
        policy = self._policy
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        found: list[RawOutput] = []
        for start in range(0, batch, self._max_batch):
            stop = start + self._max_batch
            chunk = {name: array[start:stop] for name, array in arrays.items()}
            found += infer_batch(self._pipeline, chunk, policy)
        return found

    def run_stage(
        self, name: str, inputs: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a single stage on host arrays, for verification and measurement.

        Args:
            name: of the stage.
            inputs: the stage's inputs by name, each (N, ...) as its TensorSpec says.

        Returns:
            Copies of the stage's outputs by name.

        Raises:
            InputError: the stage is unknown, or an input is missing or does not fit.
        """
        if name not in self.manifest.stages:
            known = ", ".join(self.manifest.stages)
            raise InputError(f"stage {name!r} is unknown, expected {known}")
        backend = self._pipeline.backend
        tensors = {
            key: backend.from_host(np.ascontiguousarray(array)) for key, array in inputs.items()
        }
        with self._pipeline.workspace() as workspace:
            outputs = self.engines[name].run(tensors, workspace)
            return {key: np.array(tensor.numpy()) for key, tensor in outputs.items()}

    def close(self) -> None:
        """Free all engines and buffers, after the calls under way; later ones raise InputError."""
        self._pipeline.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load_numbered(image: ImageLike, index: int, count: int) -> ImageArray:
    """As :func:`_load`, with an error that tells which image of a list is meant."""
    try:
        return _load(image)
    except InputError as error:
        raise InputError(f"images[{index}] of {count}: {error}") from None


def _load(image: ImageLike) -> ImageArray:
    if isinstance(image, np.ndarray):
        return check_image(image)
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    raise InputError(f"an image is {type(image).__name__}, expected a path or a uint8 BGR array")
