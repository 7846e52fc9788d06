"""The object that applications hold: a bundle, opened on a device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, groupby
from typing import Any, Literal, cast, overload

import numpy as np
import numpy.typing as npt

from dyninfer.builds.spec import OpenBuild
from dyninfer.bundle.calibration import EngineRecord, calibrate_command, check_calibration
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.engines.base import Engine
from dyninfer.engines.deadline import Deadline, check_deadline
from dyninfer.errors import EngineRunError, InputError, PolicyError
from dyninfer.forks import tell_after_fork
from dyninfer.hardware import usable_cores
from dyninfer.images.frames import Frame, FrameSource
from dyninfer.images.inputs import ImageLike, Picture, is_list, take_or_skip, take_picture
from dyninfer.images.pictures import MAX_PIXELS
from dyninfer.images.sources import open_source
from dyninfer.monitoring.monitor import Monitor
from dyninfer.plain_text import counted, plain
from dyninfer.results.answers import Answer, Detections, RawOutput
from dyninfer.results.postprocess import Postprocess
from dyninfer.results.tasks import Options, check_options
from dyninfer.results.tracking import Tracker
from dyninfer.routing.goals import Goal, IncompleteCalibrationError
from dyninfer.routing.keyframes import EveryNth
from dyninfer.routing.policy import DecisionPoint, Observer, Policy, check_signals, default_policy
from dyninfer.routing.previous import PreviousFrame
from dyninfer.runtime.batches import (
    Prepared,
    PreparedInput,
    answer_batch,
    check_inputs,
    chunk_of,
    infer_batch,
    join_traces,
    trace_batch,
)
from dyninfer.runtime.engine_record import engine_record, opening_options, own_calibration
from dyninfer.runtime.failures import FailureCounts
from dyninfer.runtime.plan import inputs_of_all
from dyninfer.runtime.session import Session
from dyninfer.runtime.stage_runner import Trace
from dyninfer.runtime.streaming import MEMORYLESS, Streamed, Work, stream_frames
from dyninfer.runtime.watched import watched
from dyninfer.spans import total_ms
from dyninfer.types import AnyArray, Float64Array, Int64Array, shown

_MOST_AT_ONCE = 8  # frames of a stream


@dataclass(frozen=True)
class _Routing:
    """What the user asked for, and the policy that it came to."""

    asked: Policy | Goal
    active: Policy
    observer: Observer | None


class Detector:
    """A dynamic detector: call it with images, move :attr:`policy` at any time.

    Safe to call from several threads at once. Use it as a context manager, or call
    :meth:`close`, to free its engines. It may be pickled, for example to be sent to another
    process: that opens the bundle anew, from the same path with the same arguments and policy;
    counts and what :attr:`monitor` has seen stay here.
    """

    def __init__(
        self,
        bundle: Bundle,
        session: Session,
        max_batch: int,
        build: OpenBuild | None = None,
        deadline_ms: float | None = None,
        max_pixels: int = MAX_PIXELS,
        open_again: Callable[[], Detector] | None = None,
    ) -> None:
        self._open_again = open_again
        self.bundle = bundle
        self.build = build
        self._session = session
        self._max_batch = max_batch
        self.max_pixels = max_pixels
        self._deadline_ms = deadline_ms
        self._own_options = bundle.manifest.use_options
        policy = default_policy(session.points)
        self._routing = _Routing(policy, policy, None)
        self._last_call: tuple[int, _Routing] | None = None
        calibration = partial(own_calibration, bundle, session, build)
        self._monitor = Monitor(watched(session), calibration)
        tell_after_fork(self._monitor)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself, with the tensors of the build that was opened."""
        return self._session.manifest

    @property
    def backend(self) -> str:
        """Name of the backend, for example ``onnxruntime``."""
        return self._session.backend.name

    @property
    def max_batch(self) -> int:
        """How many images are run at once; longer lists are run in pieces of so many."""
        return self._max_batch

    @property
    def device(self) -> str:
        """The device the engines run on, for example ``cpu`` or ``cuda:0``."""
        return self._session.backend.device

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every class id."""
        return self.manifest.class_names

    @property
    def engines(self) -> Mapping[str, Engine[Any, Any]]:
        """The opened stages by name, with their counters."""
        return self._session.engines

    @property
    def monitor(self) -> Monitor:
        """Watches whether images are still like those of the calibration; off until started."""
        return self._monitor

    @property
    def session(self) -> Session:
        """The engines below this object, for whoever times or feeds them directly."""
        return self._session

    @property
    def points(self) -> tuple[DecisionPoint, ...]:
        """Where the route decides, in order; none on a static route."""
        return self._session.points

    @property
    def nan_easiness_count(self) -> int:
        """How many images were treated as hard because their easiness was NaN."""
        return self.failure_counts.broken_signals

    @property
    def failure_counts(self) -> FailureCounts:
        """How many images met which failure since this was opened."""
        return self._session.failures.counts

    @property
    def policy(self) -> Policy | Goal:
        """How images are routed; a new one takes effect at the next batch, in every thread.

        A goal in the user's terms, such as :class:`dyninfer.HardFraction`, is turned into a
        threshold by the bundle's calibration when it is set; see :attr:`active_policy`.

        Raises:
            PolicyError: on setting one that this bundle cannot follow, or that needs a
                calibration which is not there or was made on other engines.
        """
        return self._routing.asked

    @policy.setter
    def policy(self, policy: Policy | Goal) -> None:
        # one reference: other threads see all of it or nothing
        self._routing = self._routing_of(policy, None)

    def _routing_of(self, policy: Policy | Goal, images: int | None) -> _Routing:
        """What a policy comes to here, for a call of that number of images, where it is known."""
        # this runs in calls, and isinstance() with a protocol takes as long as a small stage
        if isinstance(policy, PreviousFrame) and isinstance(policy.policy, Goal):
            inner = self._routing_of(policy.policy, images).active
            return replace(self._routing_of(policy.deciding_by(inner), images), asked=policy)
        decides = hasattr(policy, "decide")
        if isinstance(policy, type) or not (decides or isinstance(policy, Goal)):
            raise InputError(
                f"policy is {policy!r}, expected for example Threshold(0.5), HardFraction(0.3), "
                "LatencyBudget(ms=12.0), AlwaysEasy() or AlwaysHard()"
                + f"; write dyninfer.parse_speed({policy!r})" * isinstance(policy, str)
                + "; EveryNth is for detector.stream alone" * isinstance(policy, EveryNth)
            )
        active = cast(Policy, policy) if decides else self._resolve(cast(Goal, policy))
        self._session.check_policy(active, images)
        observer = cast(Observer, active) if hasattr(active, "observe") else None
        return _Routing(policy, active, observer)

    def _routing_for(self, policy: Policy | Goal | None, images: int) -> _Routing:
        """Of one call: its own policy, or that of this moment.

        The one of the last call is kept, so that callers who pass the same again do not wait for
        it to be checked again, or for a calibration to be read.
        """
        if policy is None:
            return self._routing
        last = self._last_call
        if last is None or last[0] != images or last[1].asked is not policy:
            last = self._last_call = images, self._routing_of(policy, images)
        return last[1]

    @property
    def active_policy(self) -> Policy:
        """What decides on images: :attr:`policy` itself, or the threshold a goal came to.

        With ``adaptive=True`` it is a :class:`dyninfer.Controller`, whose ``state`` can be looked
        at, saved and restored.
        """
        return self._routing.active

    def resolve(self, policy: Policy | Goal) -> Policy:
        """What :attr:`policy` would come to, without setting it.

        Raises:
            PolicyError: as on setting it.
        """
        return self._routing_of(policy, None).active

    def _resolve(self, goal: Goal) -> Policy:
        check_signals(self._session.points, goal.signals, goal)
        command = calibrate_command(self.bundle.path, self.opening_options())
        calibration = check_calibration(
            self.bundle.calibrations(),
            self.engine_record(),
            str(goal),
            command,
            times=goal.needs_times,
        )
        try:
            return goal.resolve(calibration)
        except IncompleteCalibrationError as lack:
            raise PolicyError(
                f"{lack.reason}; run: {f'{command} {lack.options}'.rstrip()}"
            ) from None

    def engine_record(self) -> EngineRecord:
        """What is opened here, as far as easiness and times depend on it."""
        return engine_record(self.manifest, self._session, self.build)

    def opening_options(self) -> str:
        """What ``dyninfer``'s commands must be told to open these engines, " --precision int8"."""
        return opening_options(self.manifest, self._session, self.build)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str to mypy
        self,
        images: ImageLike,
        *,
        options: Options | None = None,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> Detections: ...

    @overload
    def __call__(
        self,
        images: Sequence[ImageLike],
        *,
        options: Options | None = None,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[Detections]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        images: ImageLike,
        *,
        options: Options | None = None,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["skip"],
    ) -> Detections | None: ...

    @overload
    def __call__(
        self,
        images: Sequence[ImageLike],
        *,
        options: Options | None = None,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["skip"],
    ) -> list[Detections | None]: ...

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        options: Options | None = None,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Detections | list[Detections] | list[Detections | None] | None:
        """Detect objects, or classify where the bundle does that.

        Args:
            images: a picture, or a list of pictures: each a path, the bytes of an encoded picture,
                an (h, w, 3) uint8 BGR array as OpenCV gives it, or a picture of Pillow. Boxes are
                in the pixels of what was given; of a file that holds an orientation tag, in those
                of the upright picture.
            options: of the postprocessing, :class:`dyninfer.Postprocess` or, for a classifier,
                :class:`dyninfer.TopK`; None for the bundle's own.
            policy: for this call alone, whatever other threads do; None for :attr:`policy`.
            deadline_ms: when an answer is wanted, in milliseconds from the start of each batch of
                at most ``max_batch`` images; None for the one given to :func:`dyninfer.load`.
            on_error: what becomes of an image that cannot be used. ``"raise"`` ends the call;
                ``"skip"`` logs a warning that says why, and None takes the place of its result.

        Returns:
            One :class:`dyninfer.Detections` for one image, a list in input order for a list. Of a
            classifier they are :class:`dyninfer.Classification`, which has all the same attributes
            but the boxes.

        Raises:
            InputError: an image cannot be used; the message says which and why.
            PolicyError: the policy does not fit this bundle or these images.
            EngineRunError: a stage failed, or gave what no working engine gives; with
                ``on_failure="degrade"`` only where no exit had worked before.
            DeadlineError: an EngineRunError too; the deadline passed.
        """
        if on_error not in ("raise", "skip"):
            raise InputError(f"on_error is {shown(on_error)}, expected 'raise' or 'skip'")
        skip = on_error == "skip"
        # arrays first: they are what a hot loop brings
        if isinstance(images, np.ndarray) or not is_list(images):
            options, routing = self._choices(options, policy, 1)
            picture = take_or_skip(images, self.max_pixels, skip=skip)
            if picture is None:
                return None
            (only,) = self._answer([picture], options, routing, 0, deadline_ms)
            return only  # type: ignore[return-value]  # cast() is one more call, and this is hot
        listed = cast("Sequence[ImageLike]", images)
        found = self._answer_list(listed, options, policy, deadline_ms, skip=skip)
        return cast("list[Detections | None]", found)

    def answers(
        self,
        images: Sequence[ImageLike],
        *,
        options: Options | None = None,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
    ) -> list[Answer]:
        """What a call gives for a list, typed for every task."""
        found = self._answer_list(images, options, policy, deadline_ms, skip=False)
        return cast("list[Answer]", found)

    def _answer_list(
        self,
        images: Sequence[ImageLike],
        options: Options | None,
        policy: Policy | Goal | None,
        deadline_ms: float | None,
        *,
        skip: bool,
    ) -> list[Answer | None]:
        """In batches, which end where an image is skipped."""
        options, routing = self._choices(options, policy, len(images))
        found: list[Answer | None] = []
        count = len(images)
        for first in range(0, count, self._max_batch):
            batch = [
                take_or_skip(images[place], self.max_pixels, skip=skip, place=(place, count))
                for place in range(first, min(first + self._max_batch, count))
            ]
            for missing, run in groupby(batch, key=lambda picture: picture is None):
                if missing:
                    found += [None for _ in run]
                else:
                    pictures = [picture for picture in run if picture is not None]
                    found += self._answer(pictures, options, routing, len(found), deadline_ms)
        return found

    def _choices(
        self, options: Options | None, policy: Policy | Goal | None, images: int
    ) -> tuple[Options, _Routing]:
        """Options and routing of a call, checked."""
        self._session.check_open()
        if options is None:
            options = self._own_options
        else:
            check_options(self._session.task, options, self.manifest.name)
        return options, self._routing_for(policy, images)

    def _deadline(self, ms: float | None) -> Deadline | None:
        """Of a batch that starts now."""
        if ms is None and self._deadline_ms is None:
            return None
        return Deadline(check_deadline(self._deadline_ms if ms is None else ms))

    def _answer(
        self,
        pictures: list[Picture],
        options: Options,
        routing: _Routing,
        first: int,
        deadline_ms: float | None,
        prepared: Prepared | None = None,
        *,
        lone: bool = False,
    ) -> list[Answer]:
        """Run one batch, and tell who learns from it how that went."""
        deadline = self._deadline(deadline_ms)
        start = time.perf_counter_ns()
        try:
            found = answer_batch(
                self._session,
                pictures,
                routing.active,
                options,
                first,
                deadline,
                prepared,
                lone=lone,
            )
        except EngineRunError as error:
            self._session.failures.failed(error, len(pictures))
            raise
        if routing.observer is not None:
            elapsed_ms = (time.perf_counter_ns() - start) / 1e6
            routing.observer.observe(_ways_of(found), _spent_ms(found, elapsed_ms))
        if self._monitor.running:
            images = [picture.image for picture in pictures]
            self._monitor.observe(images, found, routing.active, options)
        return found

    @overload
    def stream(  # type: ignore[overload-overlap]  # a str is an iterable of str to mypy
        self,
        source: str | os.PathLike[str] | int | FrameSource,
        *,
        options: Options | None = None,
        policy: Policy | Goal | EveryNth | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        track: bool = False,
    ) -> Generator[Streamed, None, None]: ...

    @overload
    def stream(
        self,
        source: Iterable[ImageLike],
        *,
        options: Options | None = None,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> Generator[Detections, None, None]: ...

    @overload
    def stream(
        self,
        source: Iterable[ImageLike],
        *,
        options: Options | None = None,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["skip"],
    ) -> Generator[Detections | None, None, None]: ...

    def stream(
        self,
        source: str | os.PathLike[str] | int | FrameSource | Iterable[ImageLike],
        *,
        options: Options | None = None,
        policy: Policy | Goal | EveryNth | None = None,
        deadline_ms: float | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        track: bool = False,
    ) -> Generator[Any, None, None]:
        """Detect objects in a video, or in images one after the other, as they come.

        Of a source, threads are at work on the next frames meanwhile: on a CPU they run side by
        side where none has to do with another, else they are decoded and prepared, and with
        TensorRT sent to the GPU (those of a source of your own class are not sent). Leaving the
        loop ends the threads and closes the source when the generator goes, or at once with its
        ``close()``.

        Args:
            source: whatever :func:`dyninfer.open_source` takes, or what it has opened; or images,
                each as calls of the detector take it, which are only asked for when their turn is.
            options: as calls take it.
            policy: as calls take it, for every frame; or :class:`dyninfer.EveryNth`, which runs the
                engines for some frames alone, and tracks. A change of :attr:`policy` takes effect
                after the frames that are ahead.
            deadline_ms: as calls take it, for each frame from when its engines start.
            on_error: what becomes of a picture that cannot be used. ``"skip"`` logs a warning and
                goes on; in the place of an image's result stands None.
            track: whether objects get ids, ``track_ids``, which they keep from frame to frame; of a
                source alone.

        Yields:
            Of a source :class:`dyninfer.Streamed`: the frame, with its time, and what was found in
            it, in order. Of images what was found in each.

        Raises:
            DyninferError: as calls raise, and :class:`dyninfer.InputError` where the source cannot
                be opened or read, or its connection is lost for good.
            MissingExtra: the library that tracks is not installed.
        """
        every = policy if isinstance(policy, EveryNth) else EveryNth(1, policy)
        policy, track = every.of_those_run(), track or every.n > 1
        if not isinstance(source, (str, os.PathLike, int, FrameSource)):
            if not isinstance(source, Iterable):
                raise InputError(
                    f"source is {shown(source)}, expected the path of a video, an address, what "
                    "dyninfer.open_source gives, or images one after the other"
                )
            if track:
                raise InputError(
                    "tracking follows the frames of a source, such as the path of a video or what "
                    "dyninfer.open_source gives, and these are images one after the other"
                )
            return self._stream_images(source, options, policy, deadline_ms, on_error)

        def opened() -> FrameSource:
            if isinstance(source, FrameSource):
                return source
            return open_source(source, max_pixels=self.max_pixels, on_error=on_error)

        def answer(
            frame: Frame, decode_ms: float | None, prepared: Prepared, beside: bool
        ) -> Detections:
            chosen, routing = self._choices(options, policy, 1)
            pictures = [Picture(frame.image, decode_ms)]
            found = self._answer(pictures, chosen, routing, 0, deadline_ms, prepared, lone=beside)
            return cast(Detections, found[0])

        def alike() -> bool:
            routing = self._routing_for(policy, 1)
            # side by side frames take longer each, which goals and deadlines in milliseconds forbid
            timed = getattr(routing.asked, "needs_times", False) or self._deadline(deadline_ms)
            return type(routing.active) in MEMORYLESS and not timed and not self._monitor.running

        def at_once() -> int:
            return min(usable_cores(), _MOST_AT_ONCE) if self._session.open_lone() else 1

        session = self._session
        names = inputs_of_all(session.plan)
        inputs = {name: (session.image_specs[name], session.image_types[name]) for name in names}
        wanted = cycle([True] + [False] * (every.n - 1)).__next__
        finish = self.tracker(options, every.n) if track else lambda _, found: found
        shapes = {n: ((1, 3, spec.height, spec.width), t) for n, (spec, t) in inputs.items()}
        ahead = partial(session.backend.sending_ahead, shapes)
        return stream_frames(opened, Work(inputs, answer, alike, at_once, wanted, ahead, finish))

    def tracker(self, options: Options | None, every: int = 1) -> Tracker:
        """For one stream, with settings that fit what is reported there.

        Raises:
            InputError: nothing is found that could be followed.
            MissingExtra: the library that tracks is not installed.
        """
        chosen, _ = self._choices(options, None, 1)
        if not isinstance(chosen, Postprocess):
            raise InputError(
                f"tracking follows boxes, and {self.manifest.name} finds none (its task is "
                f"{self.manifest.task.value})"
            )
        return Tracker(chosen.confidence, every)

    def _stream_images(
        self,
        images: Iterable[ImageLike],
        options: Options | None,
        policy: Policy | Goal | None,
        deadline_ms: float | None,
        on_error: Literal["raise", "skip"],
    ) -> Generator[Detections | None, None, None]:
        call = cast("Callable[..., Detections | None]", self)
        for image in images:
            yield call(
                image, options=options, policy=policy, deadline_ms=deadline_ms, on_error=on_error
            )

    def infer(
        self,
        inputs: Mapping[str, Any],
        *,
        policy: Policy | Goal | None = None,
        deadline_ms: float | None = None,
    ) -> list[RawOutput]:
        """Run prepared tensors, without pre- and postprocessing.

        An adaptive policy decides and counts these images too, but learns no times from them.

        Args:
            inputs: image input's name -> (N, 3, H, W) float32, prepared as its ImageSpec says
                (:meth:`prepare` does that; where a build takes pixels, in uint8); for a DynamicDet
                bundle ``{"images": batch}`` with RGB values in [0, 1]. Besides NumPy's arrays,
                whatever lives on this detector's GPU and has DLPack or the CUDA Array Interface,
                such as tensors of PyTorch and CuPy: they are never copied to the host. TensorRT
                waits for whoever still writes them; ONNX Runtime cannot, so synchronise before.
            policy: for this call alone; None for :attr:`policy`.
            deadline_ms: as calls of the detector take it.

        Returns:
            One :class:`dyninfer.RawOutput` per image, in order.

        Raises:
            InputError: an input is missing, unknown, of another shape or dtype, or holds NaN.
            PolicyError: the policy does not fit this bundle or these images.
        """
        arrays = check_inputs(self.manifest, inputs)
        routing = self._routing_for(policy, len(next(iter(arrays.values()))))
        found: list[RawOutput] = []
        for first, chunk in self._chunks(arrays):
            deadline = self._deadline(deadline_ms)
            try:
                found += infer_batch(self._session, chunk, routing.active, first, deadline)
            except EngineRunError as error:
                self._session.failures.failed(error, len(next(iter(chunk.values()))))
                raise
        if routing.observer is not None:  # without preparation and postprocessing: no image's time
            routing.observer.observe(_ways_of(found), np.full(len(found), np.nan))
        return found

    def _chunks(
        self, arrays: Mapping[str, PreparedInput]
    ) -> Iterator[tuple[int, dict[str, PreparedInput]]]:
        """Pieces of at most ``max_batch`` images, each with the position of its first."""
        for first in range(0, len(next(iter(arrays.values()))), self._max_batch):
            stop = first + self._max_batch
            yield first, {name: chunk_of(array, first, stop) for name, array in arrays.items()}

    def trace(self, inputs: Mapping[str, Any], *, keep: Collection[str] = frozenset()) -> Trace:
        """Run every way of every image, each stage once, whatever the policy.

        Args:
            inputs: as :meth:`infer` takes them.
            keep: stages whose outputs are wanted as well.

        Returns:
            Signals of every decision and outputs of every way, as arrays of the caller's own.

        Raises:
            InputError: an input does not fit, or a stage is unknown.
        """
        for name in keep:
            self._known_stage(name)
        chunks = self._chunks(check_inputs(self.manifest, inputs))
        return join_traces([trace_batch(self._session, chunk, keep) for _, chunk in chunks])

    def prepare(self, images: Sequence[ImageLike]) -> dict[str, AnyArray]:
        """At least one picture, as calls of the detector take them -> what :meth:`infer` takes.

        Arrays (N, 3, H, W) by image input: float32, or uint8 where a build takes pixels.

        Raises:
            InputError: there is none, or one cannot be used.
        """
        given: Any = images
        if not (isinstance(given, np.ndarray) or is_list(given)) or not len(given):
            raise InputError(f"{shown(images)} was given, expected a list of at least one picture")
        pictures = [take_picture(image, self.max_pixels).image for image in images]
        specs, types = self.manifest.image_inputs, self._session.image_types
        return {
            name: np.stack([specs[name].prepare(picture, dtype=dtype) for picture in pictures])
            for name, dtype in types.items()
        }

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
        self._known_stage(name)
        backend = self._session.backend
        arrays = {key: np.ascontiguousarray(array) for key, array in inputs.items()}
        with self._session.workspace() as workspace:
            workspace.timed = False
            tensors = {key: backend.from_host(each, workspace) for key, each in arrays.items()}
            outputs = self.engines[name].run(tensors, workspace)
            return {key: np.array(tensor.numpy()) for key, tensor in outputs.items()}

    def warm_up(self, batches: Collection[int] | None = None) -> None:
        """Run every stage on empty images, so that the first real call is as quick as later ones.

        On a GPU that makes the contexts and CUDA graphs of these batch sizes, and of all parts of
        such a batch that decisions may split off; TensorRT-RTX compiles its kernels. They belong to
        one caller at a time: other threads make their own. The stages' counters count.

        Args:
            batches: numbers of images, from 1 to ``max_batch``; None for these two.

        Raises:
            InputError: there is no such batch.
            EngineRunError: a stage failed.
        """
        sizes = (1, self._max_batch) if batches is None else tuple(batches)
        for size in sizes:
            whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
            if not whole or not 1 <= size <= self._max_batch:
                raise InputError(
                    f"batches are {shown(batches)}, expected whole numbers from 1 to max_batch, "
                    f"which is {self._max_batch}, such as (1, {self._max_batch})"
                )
        self._session.warm_up(sorted({int(size) for size in sizes}))

    def _known_stage(self, name: str) -> None:
        stages = self.manifest.roles
        if name not in stages:
            raise InputError(f"stage {name!r} is unknown, expected {', '.join(stages)}")

    def close(self) -> None:
        """Free all engines and buffers, after the calls under way; later ones raise InputError."""
        self._monitor.stop()
        self._session.close()

    def __reduce__(self) -> tuple[Any, ...]:
        self._session.check_open()
        if self._open_again is None:
            raise InputError(
                f"the detector of {self.manifest.name} was not opened by dyninfer.load, so that no "
                "other process could open it; send the bundle's path instead"
            )
        return _opened_again, (self._open_again, self._routing.asked)

    def __repr__(self) -> str:
        manifest = self.manifest
        ways = len(manifest.ways)
        route = f"{manifest.route.kind} of {counted(ways, 'way')}"
        state = f"{self.backend} on {self.device}, {self._routing.asked!r}"
        if self._session.closed:
            state = "closed"
        classes = f"{manifest.task.value} {counted(len(manifest.class_names), 'class')}"
        return plain(f"<Detector {manifest.name}: {classes}, {route}, {state}>")

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened_again(open_again: Callable[[], Detector], policy: Policy | Goal) -> Detector:
    """What a pickled detector becomes."""
    detector = open_again()
    try:
        detector.policy = policy
    except BaseException:
        detector.close()
        raise
    return detector


def _ways_of(found: Sequence[Answer] | Sequence[RawOutput]) -> Int64Array:
    """(N,) way that each image took."""
    return np.array([result.exit_index for result in found], np.int64)


def _spent_ms(found: Sequence[Answer], elapsed_ms: float) -> Float64Array:
    """(N,) milliseconds of the images of one call: their own steps, and a share of what is left.

    They count from the decoded picture and add up to ``elapsed_ms``, as the times of a
    calibration do.
    """
    own = np.array([total_ms(result.timings_ms, decode=False) for result in found], np.float64)
    shared = (elapsed_ms - float(own.sum())) / len(found)
    return np.asarray(np.maximum(own + shared, 0.0), np.float64)
