"""Calls whose answers are known beforehand, to a detector whose second exit fails now and then."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from onnx import helper

import dyninfer
from dyninfer.bundle.manifest import CascadeRoute, Exit
from tests import support

SIZE = 8
THRESHOLDS = (0.2, 0.5, 0.8)
SOUND, NONSENSE, FAILING = 0.0, 0.5, 1.0
"""What an image says of the second exit, in channel 1: that it gives NaN, or that it fails."""


@dataclass(frozen=True)
class Image:
    """What an image is made of, and therefore what must come of it."""

    easiness: float
    trouble: float
    identity: int

    @property
    def code(self) -> tuple[float, float, float]:
        """Its three channels."""
        return self.easiness, self.trouble, float(self.identity)


def write_bundle(path: Path) -> Path:
    """Two exits: easiness in channel 0; each box is at 1000 * exit + identity."""
    nodes, constants = support.detection_nodes("mean", 1000)
    before = [
        helper.make_node("ReduceMean", ["images"], ["sound"], axes=[2, 3], keepdims=0),
        helper.make_node("Gather", ["sound", "one"], ["trouble"], axis=1),
        helper.make_node("Sub", ["limit", "trouble"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["nan_in_trouble"]),
        helper.make_node("Mul", ["nan_in_trouble", "zero"], ["nothing"]),
        helper.make_node("ReduceMax", ["trouble"], ["most"], keepdims=0),
        helper.make_node("Floor", ["most"], ["fails"]),
        helper.make_node("Cast", ["fails"], ["index"], to=7),
        helper.make_node("Gather", ["choices", "index"], ["chosen"], axis=0),  # 1 is outside
        helper.make_node("Add", ["nothing", "chosen"], ["nothing_more"]),
        helper.make_node("Add", ["sound", "nothing_more"], ["mean"]),
    ]
    constants |= {
        "one": np.array([1]),
        "limit": np.array(0.25, np.float32),
        "zero": np.array(0, np.float32),
        "choices": np.zeros(1, np.float32),
    }
    images = {"images": ["batch", 3, SIZE, SIZE]}
    second = support.tiny_model(images, support.DETECTIONS, [*before, *nodes], constants)
    models = {
        "first": support.means_of("images", SIZE, SIZE, "value"),
        "router": support.channel_router("value", 0),
        "head": support.detecting_head("value", 0),
        "second": second,
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": SIZE})


def some_images(rng: Random, troubled: float = 0.02) -> list[Image]:
    """One to twenty; a share of them is ``troubled``."""
    made = []
    for identity in range(rng.choice((1, 1, 2, 5, 20))):
        trouble = rng.choice((NONSENSE, FAILING)) if rng.random() < troubled else SOUND
        made.append(Image(rng.choice((0.1, 0.4, 0.6, 0.9)), trouble, identity))
    return made


def fault_in(
    images: Sequence[Image], answers: Sequence[dyninfer.RawOutput], threshold: float | None
) -> str:
    """What is wrong with the raw outputs; empty where nothing is.

    ``threshold`` is that of the call; None where others may have changed it meanwhile.
    """
    if fault := fault_in_ways(images, answers, threshold):
        return fault
    for image, answer in zip(images, answers, strict=True):
        corner = float(answer.outputs["boxes_xyxy"][0, 0])
        nonsense = answer.exit_index == 1 and image.trouble == NONSENSE  # outputs come as they are
        if corner != 1000 * answer.exit_index + image.identity and not nonsense:
            return f"{image} is answered by exit {answer.exit_index} with a box at {corner}"
    return ""


def fault_in_ways(
    images: Sequence[Image],
    answers: Sequence[dyninfer.RawOutput] | Sequence[dyninfer.Detections],
    threshold: float | None,
) -> str:
    """As :func:`fault_in`, of the ways that images took alone."""
    if len(images) != len(answers):
        return f"{len(answers)} answers to {len(images)} images"
    troubled = any(image.trouble for image in images)
    for image, answer in zip(images, answers, strict=True):
        if answer.degraded and not (troubled and answer.exit_index == 0):
            return f"{image} is degraded at exit {answer.exit_index}, and no engine failed"
        if answer.exit_index == 1 and image.trouble == FAILING:
            return f"{image} is answered by the exit that fails on it"
        if threshold is not None and not answer.degraded:
            expected = int(image.easiness < threshold)
            if answer.exit_index != expected:
                return f"{image} left at exit {answer.exit_index} of threshold {threshold}"
    return ""


class Tally:
    """What calls came to, of all threads."""

    def __init__(self) -> None:
        self.calls = self.answers = self.degraded = self.interrupted = self.forks = 0
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def count(self, images: int, degraded: int, fault: str) -> None:
        """One call."""
        with self._lock:
            self.calls += 1
            self.answers += images
            self.degraded += degraded
            if fault:
                self.wrong.append(fault)


def call(detector: dyninfer.Detector, rng: Random, tally: Tally) -> None:
    """One call of either kind, checked."""
    images = some_images(rng)
    threshold = rng.choice((None, *THRESHOLDS))
    policy = None if threshold is None else dyninfer.Threshold(threshold)
    answers: Sequence[dyninfer.RawOutput] | Sequence[dyninfer.Detections]
    if rng.random() < 0.7:
        codes = [image.code for image in images]
        answers = detector.infer({"images": support.coded_images(codes, SIZE)}, policy=policy)
        fault = fault_in(images, answers, threshold)
    else:
        answers = detector([_picture(rng, image) for image in images], policy=policy)
        fault = fault_in_ways(images, answers, threshold)
        if any(a.exit_index and i.trouble for a, i in zip(answers, images, strict=True)):
            fault = fault or "nonsense of the second exit was believed"
    tally.count(len(images), sum(answer.degraded for answer in answers), fault)


def _picture(rng: Random, image: Image) -> npt.NDArray[np.uint8]:
    """The same image as a picture of some size, (side, side, 3) BGR."""
    side = rng.choice((SIZE, 40, 200))
    colour = (0, math.ceil(255 * image.trouble), round(255 * image.easiness))
    return np.full((side, side, 3), colour, np.uint8)
