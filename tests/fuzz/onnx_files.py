"""Detectors as ONNX files, changed, and chained into a cascade."""

from __future__ import annotations

from pathlib import Path
from random import Random

from dyninfer.exporters.cascade.export import CascadeOptions, export_cascade
from dyninfer.exporters.cascade.options import DetectorSource
from tests.exporters.cascade import detectors
from tests.fuzz.models import mutate_model


class OnnxFiles:
    """Exported as the cheap one of a cascade, whose other one is whole."""

    def __init__(self, material: Path) -> None:
        sketches = (
            detectors.yolov5(2),
            detectors.yolov8(2),
            detectors.detections(2),
            detectors.boxes_scores(2),
            detectors.nanodet(2, 4),
        )
        metadata = {"names": "{0: 'left', 1: 'right'}"}
        paths = [
            sketch.save(material / f"{number}.onnx", metadata=metadata)
            for number, sketch in enumerate(sketches)
        ]
        self._files = [path.read_bytes() for path in paths]
        self._whole = paths[1]

    def make(self, rng: Random, folder: Path) -> None:
        data = mutate_model(rng, rng.choice(self._files), large=True)
        (folder / "cheap.onnx").write_bytes(data)

    def feed(self, folder: Path) -> None:
        sources = [DetectorSource(folder / "cheap.onnx"), DetectorSource(self._whole)]
        export_cascade(sources, folder / "some.dyn", CascadeOptions())
