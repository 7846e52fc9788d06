"""The object that applications hold: a bundle, opened on a device."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from dyninfer.batch_run import BatchResult, ExitGroup
from dyninfer.bundle import Bundle
from dyninfer.engines import open_backend
from dyninfer.engines.base import Engine, check_tensor
from dyninfer.errors import InputError
from dyninfer.images import check_image, read_image
from dyninfer.imagespec import Placement
from dyninfer.manifest import Manifest, Task
from dyninfer.pipeline import CascadePipeline
from dyninfer.policy import AlwaysHard, Policy, Threshold
from dyninfer.postprocess import Postprocess
from dyninfer.types import Detections, Float32Array, ImageArray, Int64Array, RawOutput

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
) -> Detector:
    """Open a bundle.

    Args:
        path: the bundle's folder, ``NAME.dyn``.
        device: ``"cpu"`` or ``"cuda:0"``.
        backend: ``"onnxruntime"``, or None for the best one available.
        provider: ONNX Runtime's execution provider, ``"cpu"``, ``"cuda"`` or ``"tensorrt"``;
            None takes the device's own.
        max_batch: longer lists of images are run in batches of this size.

    Raises:
        BundleError: the bundle is incomplete, changed, or from a later version.
        BackendUnavailable: backend, device or provider is not there.
    """
    if max_batch < 1:
        raise InputError(f"max_batch is {max_batch}, expected at least 1")
    bundle = Bundle.open(path if isinstance(path, Path) else Path(os.fspath(path)))
    pipeline = CascadePipeline(bundle, open_backend(backend, device, provider))
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
        self._closed = False
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
        self._check_open()
        if self.manifest.task is not Task.DETECT:
            raise InputError(f"{self.manifest.name} classifies; use infer for its logits")
        options = options or Postprocess()
        if isinstance(images, (str, os.PathLike, np.ndarray)):
            return self._detect_batch([_load(images)], options)[0]
        if not isinstance(images, Sequence):
            raise InputError(
                f"images is {type(images).__name__}, expected a path, an array, or a list of them"
            )
        found: list[Detections] = []
        for start in range(0, len(images), self._max_batch):
            batch = [_load(image) for image in images[start : start + self._max_batch]]
            found += self._detect_batch(batch, options)
        return found

    def stream(
        self, images: Iterable[ImageLike], *, options: Postprocess | None = None
    ) -> Iterator[Detections]:
        """Detect objects in images one after the other, as they come."""
        for image in images:
            yield self(image, options=options)

    def _detect_batch(self, images: list[ImageArray], options: Postprocess) -> list[Detections]:
        policy = self._policy
        prepare_ms = np.zeros(len(images))

        def feed(name: str, rows: Int64Array, workspace: Any) -> Float32Array:
            spec = self.manifest.image_inputs[name]
            batch = workspace.host_array(name, (len(rows), 3, spec.height, spec.width))
            for position, row in enumerate(rows):
                start = time.perf_counter_ns()
                spec.prepare(images[row], batch[position])
                prepare_ms[row] += (time.perf_counter_ns() - start) / 1e6
            return batch  # type: ignore[no-any-return]  # the workspace is the backend's own

        found: dict[int, Detections] = {}
        with self._pipeline.workspace() as workspace:
            result = self._pipeline.run(feed, len(images), policy, workspace)
            for group in result.groups:
                for position, row in enumerate(map(int, group.rows)):
                    timings = {"prepare": float(prepare_ms[row])}
                    found[row] = self._detections(
                        images[row], result, group, position, options, timings
                    )
        return [found[row] for row in range(len(images))]

    def _detections(
        self,
        image: ImageArray,
        result: BatchResult,
        group: ExitGroup,
        position: int,
        options: Postprocess,
        timings: dict[str, float],
    ) -> Detections:
        row = int(group.rows[position])
        start = time.perf_counter_ns()
        boxes, confidences, class_ids = options(
            group.outputs["boxes_xyxy"][position], group.outputs["class_scores"][position]
        )
        boxes = self._placement(image, group.exit_index).to_image(boxes)
        timings |= result.timings_of(row)
        timings["postprocess"] = (time.perf_counter_ns() - start) / 1e6
        return Detections(
            boxes_xyxy=boxes,
            confidences=confidences.astype(np.float32, copy=False),
            class_ids=class_ids.astype(np.int64, copy=False),
            class_names=tuple(self.class_names[class_id] for class_id in class_ids),
            easiness=_easiness(result, row),
            exit_index=group.exit_index,
            timings_ms=timings,
        )

    def _placement(self, image: ImageArray, exit_index: int) -> Placement:
        name = self.manifest.exits[exit_index].image_input
        return self.manifest.image_inputs[name].place(image.shape[1], image.shape[0])

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
        self._check_open()
        batch = self._check_inputs(inputs)
        policy = self._policy
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        found: list[RawOutput] = []
        for start in range(0, batch, self._max_batch):
            stop = start + self._max_batch
            found += self._infer_batch({name: a[start:stop] for name, a in arrays.items()}, policy)
        return found

    def _infer_batch(
        self, arrays: Mapping[str, npt.NDArray[Any]], policy: Policy
    ) -> list[RawOutput]:
        batch = len(next(iter(arrays.values())))

        def feed(name: str, rows: Int64Array, _workspace: Any) -> Float32Array:
            return arrays[name] if len(rows) == batch else arrays[name][rows]

        found: dict[int, RawOutput] = {}
        with self._pipeline.workspace() as workspace:
            result = self._pipeline.run(feed, batch, policy, workspace)
            for group in result.groups:
                for position, row in enumerate(map(int, group.rows)):
                    outputs = {
                        name: array[position].copy() for name, array in group.outputs.items()
                    }
                    found[row] = RawOutput(_easiness(result, row), group.exit_index, outputs)
        return [found[row] for row in range(batch)]

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
        self._check_open()
        if name not in self.engines:
            raise InputError(f"stage {name!r} is unknown, expected {', '.join(self.engines)}")
        backend = self._pipeline.backend
        tensors = {
            key: backend.from_host(np.ascontiguousarray(array)) for key, array in inputs.items()
        }
        with self._pipeline.workspace() as workspace:
            outputs = self.engines[name].run(tensors, workspace)
            return {key: np.array(tensor.numpy()) for key, tensor in outputs.items()}

    def _check_inputs(self, inputs: Mapping[str, npt.NDArray[Any]]) -> int:
        """Number of images in prepared tensors, after every check."""
        specs = {
            spec.name: spec
            for stage in self.manifest.stages.values()
            for spec in stage.inputs
            if spec.name in self.manifest.image_inputs
        }
        if set(inputs) != set(specs):
            raise InputError(
                f"inputs are {sorted(inputs)}, expected {sorted(specs)} "
                f"({'; '.join(map(str, specs.values()))})"
            )
        batch = len(next(iter(inputs.values())))
        if not batch:
            raise InputError("the batch is empty, expected at least one image")
        for name, array in inputs.items():
            check_tensor(array.shape, array.dtype, specs[name], batch, self.manifest.name)
            if not np.isfinite(array).all():
                raise InputError(f"{name} holds NaN or infinity; check the preprocessing")
        return batch

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("the detector was closed; load the bundle again")

    def close(self) -> None:
        """Free all engines and buffers; further calls raise InputError."""
        self._closed = True
        self._pipeline.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _load(image: ImageLike) -> ImageArray:
    if isinstance(image, np.ndarray):
        return check_image(image)
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    raise InputError(f"an image is {type(image).__name__}, expected a path or a uint8 BGR array")


def _easiness(result: BatchResult, row: int) -> float | None:
    value = float(result.easiness[row])
    return None if np.isnan(value) else value
