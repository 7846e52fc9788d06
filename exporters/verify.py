"""Comparing every stage, every way and every decision of a bundle with its source model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain

import numpy as np

from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import BundleError
from dyninfer.exporters.candidate_rows import PROPOSALS
from dyninfer.exporters.extras import return_memory
from dyninfer.exporters.family import SourceStage
from dyninfer.exporters.parity import (
    Errors,
    Parity,
    Recording,
    SignalPairs,
    Tolerance,
    as_meant,
    as_read,
)
from dyninfer.images.spec import ImageSpec
from dyninfer.runtime.arrays import ArrayRunner
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.executor import trace
from dyninfer.runtime.plan import Plan, Segment, plan
from dyninfer.runtime.stage_runner import Arrays, Trace
from dyninfer.types import AnyArray, ImageArray

Progress = Callable[[int], None]
BATCH = 2


def verify(
    detector: Detector,
    source: Mapping[str, SourceStage],
    photos: Sequence[ImageArray],
    random_tensors: int,
    progress: Progress = lambda _samples: None,
    batch: int = BATCH,
) -> Parity:
    """Compare an opened bundle with its source.

    Every stage is fed what the source's stages before it produced, so that an error is seen
    where it arises; then every way and every decision is compared from the images on. The source
    and the stages run one image at a time, to save memory; the ways run in batches, to try that
    axis.

    Args:
        detector: the opened bundle.
        source: stages by name. A router or chooser that is not among them is not compared.
        photos: (h, w, 3) uint8 BGR pictures.
        random_tensors: number of inputs of uniform noise between black and white.
        progress: called after samples with their number.
        batch: largest number of images that the ways are run for at once.

    Raises:
        BundleError: the source lacks a stage that makes results.
    """
    reference = _Source(detector.manifest, source)
    errors, signals, tolerance = Errors(), SignalPairs(reference.plan), Tolerance()
    for images in _samples(detector, photos, random_tensors, batch):
        found = detector.trace(as_read(detector.manifest, images))
        for row, image in enumerate(_one_by_one(images)):
            stages, expected = reference.trace(image)
            return_memory()
            for name, inputs in stages.reads.items():
                fed = as_read(detector.manifest, inputs)
                made = as_meant(detector.manifest, name, detector.run_stage(name, fed))
                errors.add_all(name, made, stages.makes[name], reference.spare(name))
            del stages  # the features of an image of 1280 pixels take hundreds of megabytes
            of_image = _row_of(found, row)
            reference.add_ends(errors, of_image, expected)
            signals.add(expected.signals, of_image.signals)
            progress(1)
    checks = errors.checks(tolerance)
    if not all(check.passed for check in checks):
        rounding = reference.rounding(_samples(detector, photos, random_tensors, batch))
        checks = errors.checks(tolerance, rounding)
    return Parity(
        checks=checks,
        decisions=signals.flips(),
        photos=len(photos),
        random_tensors=random_tensors,
        backend=detector.backend,
        device=detector.device,
        tolerance=tolerance,
        not_compared=tuple(name for name in detector.manifest.stages if name not in source),
    )


def _samples(
    detector: Detector, photos: Sequence[ImageArray], random_tensors: int, batch: int
) -> Iterable[Arrays]:
    """Every image input in float32, for photos, then for noise, in batches."""
    manifest = detector.manifest
    specs = manifest.image_inputs
    for start in range(0, len(photos), batch):
        prepared = detector.prepare(photos[start : start + batch])
        yield {
            name: specs[name].normalised(array) if array.dtype == np.uint8 else array
            for name, array in prepared.items()
        }
    rng = np.random.default_rng(0)
    for start in range(0, random_tensors, batch):
        count = min(batch, random_tensors - start)
        noise = {name: _noise(specs[name], count, rng) for name in manifest.image_tensors}
        for name, array in noise.items():
            if manifest.image_tensors[name].dtype == "uint8":
                noise[name] = specs[name].normalised(specs[name].pixels(array))
        yield noise


def _noise(spec: ImageSpec, count: int, rng: np.random.Generator) -> AnyArray:
    """Uniform noise (count, 3, H, W) float32 over what a pixel can become."""
    mean, std = (np.array(n, np.float32).reshape(3, 1, 1) for n in (spec.mean, spec.std))
    black, white = -mean / std, (255 - mean) / std
    noise = rng.random((count, 3, spec.height, spec.width), np.float32)
    return black + noise * (white - black)


class _Source:
    """The source model on the bundle's route, without the deciders that it lacks."""

    def __init__(self, manifest: Manifest, stages: Mapping[str, SourceStage]) -> None:
        self.plan: Plan = tuple(_known(segment, stages) for segment in plan(manifest))
        self._manifest = manifest
        self._stages = stages

    def run(self, stage: str, tensors: Arrays) -> Arrays:
        """A stage's outputs by name."""
        entry = self._manifest.stages[stage]
        made = self._stages[stage].run([tensors[spec.name] for spec in entry.inputs])
        return dict(zip((spec.name for spec in entry.outputs), made, strict=True))

    def trace(self, images: Arrays) -> tuple[Recording, Trace]:
        """What every stage reads and makes of a batch, and where every way ends."""
        recording = Recording(self._manifest.stages, self.run)
        batch = len(next(iter(images.values())))
        return recording, trace(self.plan, ArrayRunner(images, recording.run), batch)

    def spare(self, stage: str | None = None) -> float:
        """The share of a stage's candidates that may be chosen otherwise; None is for a way's end.

        Where regions are proposed, they are chosen by how far they overlap, which rounding flips.
        """
        stages = self._manifest.stages
        chosen = [stages[stage]] if stage else stages.values()
        proposes = any(spec.name == PROPOSALS for each in chosen for spec in each.outputs)
        return Tolerance.proposals_apart if proposes else 0.0

    def add_ends(self, errors: Errors, found: Trace, expected: Trace) -> None:
        """Compare the outputs of every way, and the signals that the source has."""
        for where, ours, theirs in zip(
            self._manifest.way_names, found.ways, expected.ways, strict=True
        ):
            errors.add_all(where, ours, theirs, self.spare())
        decisions = (segment.decide for segment in self.plan if segment.decide)
        for decision, signal, own in zip(decisions, found.signals, expected.signals, strict=True):
            if signal is not None and own is not None:
                where = f"decision {decision.point.index}"
                errors.add(where, decision.signal, signal, own)

    def rounding(self, samples: Iterable[Arrays]) -> Errors | None:
        """How far the source is from itself with twice the bits, at every place.

        Stages that cannot compute so have none; None where no stage can.
        """
        rounding = Errors()
        for image in chain.from_iterable(map(_one_by_one, samples)):
            stages, single = self.trace(image)
            with ExitStack() as stack:
                exact = [stage.in_double() for stage in self._stages.values()]
                if not any(exact):
                    return None
                for block in filter(None, exact):
                    stack.enter_context(block)
                return_memory()  # of the weights in float32
                for name, inputs in stages.reads.items():
                    made = self.run(name, _doubled(inputs))
                    rounding.add_all(name, made, stages.makes[name], self.spare(name))
                del stages  # or a second recording would stand beside it
                runner = ArrayRunner(_doubled(image), self.run)
                self.add_ends(rounding, trace(self.plan, runner, 1), single)
                return_memory()
        return rounding


def _known(segment: Segment, stages: Mapping[str, SourceStage]) -> Segment:
    """The segment without its decider, where the source lacks that.

    Raises:
        BundleError: the source lacks another stage.
    """
    decide = segment.decide
    if decide and decide.step and decide.step.stage not in stages:
        segment = replace(segment, decide=replace(decide, step=None))
    if missing := [step.stage for step in segment.steps if step.stage not in stages]:
        raise BundleError(
            f"the source has no stage {missing[0]!r}, only {', '.join(stages)}; a router or a "
            "chooser may be missing, but nothing that makes results"
        )
    return segment


def _one_by_one(images: Arrays) -> Iterator[Arrays]:
    """The images of a batch as batches of one."""
    for row in range(len(next(iter(images.values())))):
        yield {name: array[row : row + 1] for name, array in images.items()}


def _row_of(found: Trace, row: int) -> Trace:
    """What a trace says of one image of its batch."""
    one = slice(row, row + 1)
    signals = (None if signal is None else signal[one] for signal in found.signals)
    ways = ({name: array[one] for name, array in way.items()} for way in found.ways)
    return Trace(tuple(signals), tuple(ways), {})


def _doubled(arrays: Arrays) -> dict[str, AnyArray]:
    return {name: array.astype(np.float64) for name, array in arrays.items()}
