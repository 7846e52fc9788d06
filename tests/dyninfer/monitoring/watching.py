"""Bundles, pictures and calibrations whose easiness and losses are written into the pixels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

import dyninfer
from dyninfer.bundle.calibration import (
    Calibration,
    CalibrationRow,
    Certificate,
    EngineRecord,
    ImageSet,
    WayFigures,
)
from dyninfer.bundle.manifest import CascadeRoute, Exit
from dyninfer.results.answers import Answer
from dyninfer.results.tasks import Options
from dyninfer.runtime.session import Session
from dyninfer.runtime.watched import watched
from tests import support

STEPS = 255  # easiness of a picture is a multiple of 1 / STEPS


def write_audited(path: Path, size: int = 8) -> Path:
    """Channel 0 is the easiness; exit 1 answers as exit 0 does, shifted by 1000 x channel 1."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Gather", ["mean", "second"], ["picked"], axis=1),
        helper.make_node("Mul", ["picked", "far"], ["distance"]),
        helper.make_node("Unsqueeze", ["distance", "axes"], ["column"]),
        helper.make_node("Add", ["column", "corners"], ["boxes_xyxy"]),
        helper.make_node("Mul", ["column", "no_score"], ["zeros"]),
        helper.make_node("Add", ["zeros", "scores"], ["class_scores"]),
    ]
    constants = {
        "second": np.array(1),
        "far": np.array(1000, np.float32),
        "axes": np.array([1, 2]),
        "corners": np.array([[[0, 0, 8, 8]]], np.float32),
        "no_score": np.zeros((1, 1, 2), np.float32),
        "scores": np.array([[[0.25, 0.75]]], np.float32),
    }
    images = {"images": ["batch", 3, size, size]}
    models = {
        "first": support.means_of("images", size, size, "value"),
        "router": support.channel_router("value", 0),
        "head": support.detecting_head("value", 0),
        "last": support.tiny_model(images, support.DETECTIONS, nodes, constants),
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="last"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": size})


def picture(easiness: float, *, disagrees: bool = False, size: int = 8) -> np.ndarray:
    """(size, size, 3) BGR; a picture that disagrees has a loss of 1, another of 0."""
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 2] = round(easiness * STEPS)
    image[..., 1] = STEPS * disagrees
    return image


def pictures(easiness: npt.ArrayLike, disagrees: npt.ArrayLike | bool = False) -> list[np.ndarray]:
    values = np.asarray(easiness)
    marks = np.broadcast_to(np.asarray(disagrees), values.shape)
    return [picture(v, disagrees=bool(mark)) for v, mark in zip(values, marks, strict=True)]


def quantised(easiness: npt.ArrayLike) -> np.ndarray:
    """Easiness as pictures of it have it."""
    return np.round(np.asarray(easiness) * STEPS) / STEPS


def calibration_of(
    easiness: npt.ArrayLike,
    losses: npt.ArrayLike = 0.0,
    certificate: Certificate | None = None,
) -> Calibration:
    """A calibration of (N,) or (routers, N) easiness, NaN allowed, and losses to broadcast."""
    rows = np.atleast_2d(np.asarray(easiness, np.float64))
    ends = [
        CalibrationRow(percentile=p, threshold=t, hard_fraction=p / 100, mean_ms=1.0, agreement=1.0)
        for p, t in ((0, 0.0), (100, 1.5))
    ]
    return Calibration(
        written_by="a test",
        engine=EngineRecord(
            stages_sha256={},
            precision={},
            image_inputs={},
            backend="onnxruntime",
            backend_version="0",
            provider="cpu",
            device_name="none",
        ),
        images=ImageSet(count=rows.shape[1], sha256="0" * 64),
        easiness=tuple(tuple(None if np.isnan(v) else v for v in row) for row in rows.tolist()),
        losses=np.broadcast_to(losses, rows.shape).tolist(),
        metrics=("AP", "AP50"),
        ways=(WayFigures(mean_ms=1.0, agreement=1.0),) * (len(rows) + 1),
        exit_ms=((1.0,),) * (len(rows) + 1),
        rows=tuple(ends),
        certificate=certificate,
    )


def certificate(threshold: float, risk: float) -> Certificate:
    return Certificate(
        risk=risk,
        confidence=0.9,
        threshold=threshold,
        hard_fraction=0.5,
        measured_risk=risk / 2,
        method="a test's",
    )


def answer(
    easiness: float | None, exit_index: int = 0, boxes: Sequence[float] = (), **others: Any
) -> dyninfer.Detections:
    """Detections with one box for every left edge given, 8 pixels wide and high."""
    count = len(boxes)
    corners = np.array([(x, 0, x + 8, 8) for x in boxes], np.float32).reshape(count, 4)
    scores, ids = np.full(count, 0.75, np.float32), np.ones(count, np.int64)
    names = ("right",) * count
    return dyninfer.Detections(corners, scores, ids, names, easiness, exit_index, **others)


def audit_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dyninfer-audit"]


class Gated:
    """The last way answers only while its gate is open, and with an error where it is broken."""

    def __init__(self, session: Session) -> None:
        self.session, self._watched = session, watched(session)
        self.entered, self.open = threading.Event(), threading.Event()
        self.open.set()
        self.broken = False
        self.audited: list[np.ndarray] = []

    def gate(self) -> Gated:
        """Shut the gate; calls of the detector go on."""
        self.entered.clear()
        self.open.clear()
        self.audited.clear()
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watched, name)

    def last_answer(self, image: np.ndarray, options: Options) -> Answer:
        self.entered.set()
        assert self.open.wait(60)
        if self.broken:
            raise IndexError("broken")
        self.audited.append(image)
        return self._watched.last_answer(image, options)
