"""The object that applications hold: a bundle, opened on a device."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from dyninfer.builds.spec import OpenBuild
from dyninfer.bundle.calibration import EngineRecord, check_calibration
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Task
from dyninfer.engines.base import Engine
from dyninfer.errors import InputError, PolicyError
from dyninfer.images.pictures import ImageLike, Picture, take_numbered, take_picture
from dyninfer.monitoring.monitor import Monitor
from dyninfer.results.detections import Detections, RawOutput
from dyninfer.results.postprocess import Postprocess
from dyninfer.routing.goals import Target
from dyninfer.routing.policy import AlwaysHard, Observer, Policy, Threshold
from dyninfer.runtime.batches import check_inputs, chunk_of, detect_batch, infer_batch
from dyninfer.runtime.engine_record import engine_record, own_calibration
from dyninfer.runtime.session import CascadePipeline
from dyninfer.spans import total_ms
from dyninfer.types import Float64Array, Int64Array

DEFAULT_THRESHOLD = 0.5
DEFAULT_OPTIONS = Postprocess()


@dataclass(frozen=True)
class _Routing:
    """What the user asked for, and the policy that it came to."""

    asked: Policy | Target
    active: Policy
    observer: Observer | None


class Detector:
    """A dynamic detector: call it with images, move :attr:`policy` at any time.

    Safe to call from several threads at once. Use it as a context manager, or call
    :meth:`close`, to free its engines.
    """

    def __init__(
        self,
        bundle: Bundle,
        pipeline: CascadePipeline,
        max_batch: int,
        build: OpenBuild | None = None,
    ) -> None:
        self.bundle = bundle
        self.build = build
        self._pipeline = pipeline
        self._max_batch = max_batch
        routed = bundle.manifest.has_routers and len(bundle.manifest.exits) > 1
        policy: Policy = Threshold(DEFAULT_THRESHOLD) if routed else AlwaysHard()
        self._routing = _Routing(policy, policy, None)
        self._detects = bundle.manifest.task is Task.DETECT
        self._monitor = Monitor(pipeline, partial(own_calibration, bundle, pipeline, build))

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
    def monitor(self) -> Monitor:
        """Watches whether images are still like those of the calibration; off until started."""
        return self._monitor

    @property
    def nan_easiness_count(self) -> int:
        """How many images were treated as hard because their easiness was NaN."""
        return self._pipeline.nan_easiness_count

    @property
    def policy(self) -> Policy | Target:
        """How images are routed; a new one takes effect at the next batch, in every thread.

        A target in the user's terms, such as :class:`dyninfer.HardFraction`, is turned into a
        threshold by the bundle's calibration when it is set; see :attr:`active_policy`.

        Raises:
            PolicyError: on setting one that this bundle cannot follow, or that needs a
                calibration which is not there or was made on other engines.
        """
        return self._routing.asked

    @policy.setter
    def policy(self, policy: Policy | Target) -> None:
        if isinstance(policy, type) or not isinstance(policy, (Policy, Target)):
            raise InputError(
                f"policy is {policy!r}, expected for example Threshold(0.5), HardFraction(0.3), "
                "LatencyBudget(ms=12.0), AlwaysEasy() or AlwaysHard()"
            )
        active = policy if isinstance(policy, Policy) else self._resolve(policy)
        self._pipeline.check_policy(active)
        observer = active if isinstance(active, Observer) else None
        # one reference: other threads see all of it or nothing
        self._routing = _Routing(policy, active, observer)

    @property
    def active_policy(self) -> Policy:
        """What decides on images: :attr:`policy` itself, or the threshold a target came to.

        With ``adaptive=True`` it is a :class:`dyninfer.Controller`, whose ``state`` can be looked
        at, saved and restored.
        """
        return self._routing.active

    @contextmanager
    def kept_policy(self) -> Iterator[None]:
        """After the block the policy is as before; adaptive control goes on where it was."""
        before = self._routing
        try:
            yield
        finally:
            self._routing = before

    def _resolve(self, target: Target) -> Policy:
        if not self.manifest.has_routers or len(self.manifest.exits) < 2:
            raise PolicyError(
                f"{target} needs a router and {self.manifest.name} has none; "
                "use AlwaysEasy or AlwaysHard, or train one with dyninfer fit-router"
            )
        calibration = check_calibration(
            self.bundle.calibration(),
            self.engine_record(),
            self.bundle.path,
            str(target),
            times=target.needs_times,
        )
        return target.resolve(calibration)

    def engine_record(self) -> EngineRecord:
        """What is opened here, as far as easiness and times depend on it."""
        return engine_record(self.manifest, self._pipeline, self.build)

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
        if not self._detects:
            raise InputError(f"{self.manifest.name} classifies; use infer for its logits")
        options = options or DEFAULT_OPTIONS
        if isinstance(images, (str, os.PathLike, np.ndarray)):
            return self._detect([take_picture(images)], options)[0]
        if not isinstance(images, Sequence):
            raise InputError(
                f"images is {type(images).__name__}, expected a path, an array, or a list of them"
            )
        found: list[Detections] = []
        for start in range(0, len(images), self._max_batch):
            batch = [
                take_numbered(image, start + offset, len(images))
                for offset, image in enumerate(images[start : start + self._max_batch])
            ]
            found += self._detect(batch, options)
        return found

    def _detect(self, pictures: list[Picture], options: Postprocess) -> list[Detections]:
        """Run one batch with the policy of this moment, and tell it how that went."""
        routing = self._routing
        policy, observer = routing.active, routing.observer
        images = [picture.image for picture in pictures]
        decode_ms = [picture.decode_ms for picture in pictures]
        start = time.perf_counter_ns()
        found = detect_batch(self._pipeline, images, policy, options, decode_ms)
        if observer is not None:
            elapsed_ms = (time.perf_counter_ns() - start) / 1e6
            observer.observe(_exits_of(found), _spent_ms(found, elapsed_ms))
        self._monitor.observe(images, found, policy, options)
        return found

    def stream(
        self, images: Iterable[ImageLike], *, options: Postprocess | None = None
    ) -> Iterator[Detections]:
        """Detect objects in images one after the other, as they come."""
        for image in images:
            yield self(image, options=options)

    def infer(self, inputs: Mapping[str, Any]) -> list[RawOutput]:
        """Run prepared tensors, without pre- and postprocessing.

        An adaptive policy decides and counts these images too, but learns no times from them.

        Args:
            inputs: image input's name -> (N, 3, H, W) float32, prepared as its ImageSpec says;
                for a DynamicDet bundle ``{"images": batch}`` with RGB values in [0, 1]. Besides
                NumPy's arrays, whatever lives on this detector's GPU and has DLPack or the CUDA
                Array Interface, such as tensors of PyTorch and CuPy: they are never copied to the
                host. TensorRT waits for whoever still writes them; ONNX Runtime cannot, so
                synchronise before.

        Returns:
            One :class:`dyninfer.RawOutput` per image, in order.

        Raises:
            InputError: an input is missing, unknown, of another shape or dtype, or holds NaN.
        """
        arrays = check_inputs(self.manifest, inputs)
        routing = self._routing
        found: list[RawOutput] = []
        for start in range(0, len(next(iter(arrays.values()))), self._max_batch):
            stop = start + self._max_batch
            chunk = {name: chunk_of(array, start, stop) for name, array in arrays.items()}
            found += infer_batch(self._pipeline, chunk, routing.active)
        if routing.observer is not None:  # without preparation and postprocessing: no image's time
            routing.observer.observe(_exits_of(found), np.full(len(found), np.nan))
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
            found = {key: np.array(tensor.numpy()) for key, tensor in outputs.items()}
            workspace.device_spans()  # or the next batch would find the times of this run
        return found

    def close(self) -> None:
        """Free all engines and buffers, after the calls under way; later ones raise InputError."""
        self._monitor.stop()
        self._pipeline.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _exits_of(found: Sequence[Detections] | Sequence[RawOutput]) -> Int64Array:
    """(N,) exit at which each image left."""
    return np.array([result.exit_index for result in found], np.int64)


def _spent_ms(found: Sequence[Detections], elapsed_ms: float) -> Float64Array:
    """(N,) milliseconds of the images of one call: their own steps, and a share of what is left.

    They count from the decoded picture and add up to ``elapsed_ms``, as the times of a
    calibration do.
    """
    own = np.array([total_ms(result.timings_ms, decode=False) for result in found], np.float64)
    shared = (elapsed_ms - float(own.sum())) / len(found)
    return np.asarray(np.maximum(own + shared, 0.0), np.float64)
