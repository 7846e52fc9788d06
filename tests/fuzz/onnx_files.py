"""Detectors as ONNX files, changed, and chained into a cascade."""

from __future__ import annotations

from pathlib import Path
from random import Random

from dyninfer.exporters.cascade.export import CascadeOptions, export_cascade
from dyninfer.exporters.cascade.options import ClassList, DetectorSource
from dyninfer.exporters.cascade.write import REQUEST, Request, write_stages
from tests.exporters.cascade import detectors
from tests.fuzz.models import mutate_model

IN_A_CHILD = "in-a-child"
"""Beside an input that takes the long way: a child that imports everything takes two seconds."""


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
        limited = rng.random() < 0.05
        data = mutate_model(rng, rng.choice(self._files), large=limited)
        (folder / "cheap.onnx").write_bytes(data)
        if limited:  # as only a child's memory is
            (folder / IN_A_CHILD).touch()

    def feed(self, folder: Path) -> None:
        """Most are given to what the child runs, here: this process may crash as well as that."""
        sources = (DetectorSource(folder / "cheap.onnx"), DetectorSource(self._whole))
        if (folder / IN_A_CHILD).exists():
            export_cascade(sources, folder / "some.dyn", CascadeOptions())
            return
        (folder / "onnx").mkdir()
        asked = Request(sources, (None,) * len(sources), folder, ClassList.LAST, 1000)
        write_stages(REQUEST.dump_python(asked, mode="json"), lambda _step: None)
