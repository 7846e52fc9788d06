"""What a user may say of a detector, and what is worked out where nothing is said."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path

from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import ConfigError
from dyninfer.images.spec import ColorOrder, ImageSpec, ResizeMode

Triple = tuple[float, float, float]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
ONE, SEVERAL = "onnx", "cascade"
"""The families of bundles that are made from one ONNX file, and from several."""
ALONE = "detector"
"""The stage of a detector that is no part of a cascade."""
SIZED = "size_"
"""How the stages of one detector at several image sizes begin: ``size_224``, ``size_160x320``."""


class Decode(str, Enum):
    """What a detector's outputs mean; docs/cascades.md lists the shapes of each."""

    YOLOV5 = "yolov5"
    YOLOV8 = "yolov8"
    YOLOX = "yolox"
    YOLO_END2END = "yolo-end2end"
    NANODET = "nanodet"
    DETECTIONS = "detections"
    BOXES_SCORES = "boxes-scores"
    BOXES_SCORES_LABELS = "boxes-scores-labels"
    DETR = "detr"
    RTDETR = "rtdetr"
    CENTERNET = "centernet"


class Layout(str, Enum):
    """Order of the axes of a detector's image input."""

    NCHW = "nchw"
    NHWC = "nhwc"


class BoxFormat(str, Enum):
    """The four numbers of a box: corners, centre and size, or corner and size; y may come first."""

    XYXY = "xyxy"
    CXCYWH = "cxcywh"
    XYWH = "xywh"
    YXYX = "yxyx"
    CYCXHW = "cycxhw"


class BoxUnit(str, Enum):
    """What box coordinates count: pixels of the input tensor, or shares of its sides."""

    PIXELS = "pixels"
    NORMALISED = "normalised"


class Coding(str, Enum):
    """How four numbers of a box come about.

    As they are; from a cell's offsets and logarithms of sizes (YOLOX); from distributions over a
    cell's distances to the sides (NanoDet); at a heatmap's peaks, from offsets and sizes.
    """

    PLAIN = "plain"
    CELLS = "cells"
    DISTANCES = "distances"
    PEAKS = "peaks"


class Scores(str, Enum):
    """What scores are: probabilities, or logits of a sigmoid or of a softmax over all classes."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    SOFTMAX = "softmax"


class ClassIds(str, Enum):
    """How a file numbers its classes: one after the other, or by COCO's 91 ids, some unused."""

    SEQUENTIAL = "sequential"
    COCO91 = "coco91"


class ClassList(str, Enum):
    """Which classes a bundle of several detectors has."""

    LAST = "last"
    COMMON = "common"
    UNION = "union"


@dataclass(frozen=True)
class DetectorSource:
    """One detector, and what its user knows of it; None is worked out.

    The checkpoint of an EfficientDet takes ``size``, ``class_names`` and ``config``, which names
    the published configuration that it was trained with; an ONNX file takes all but this.

    ``size`` is height and width in pixels; ``mean`` and ``std`` are per channel in tensor order, in
    units of 0 to 255: (pixel - mean) / std. ``class_names`` is a text file with one name per line,
    or a data set's YAML. ``boxes`` is the unit of the boxes and ``box_format`` their form, where
    they are plain numbers; ``scores`` is what scores are before they are read. ``cell_offset`` is
    where a cell's centre lies for ``nanodet``, ``yolox`` and ``centernet``, in cells.
    ``class_offset`` is the number that the file gives its first class, in labels or columns.
    """

    path: Path
    decode: Decode | None = None
    size: tuple[int, int] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    layout: Layout | None = None
    color: ColorOrder | None = None
    resize: ResizeMode | None = None
    class_names: Path | None = None
    class_offset: int | None = None
    class_ids: ClassIds | None = None
    boxes: BoxUnit | None = None
    box_format: BoxFormat | None = None
    scores: Scores | None = None
    cell_offset: float | None = None
    config: str | None = None

    @property
    def options(self) -> frozenset[str]:
        """The fields that were given, as options are called."""
        names = (field.name for field in fields(self) if field.name != "path")
        return frozenset(n.replace("_", "-") for n in names if getattr(self, n) is not None)


ONNX_OPTIONS = frozenset(f.name.replace("_", "-") for f in fields(DetectorSource)) - {
    "path",
    "config",
}


def check_options(prefix: str, source: DetectorSource, kind: str, known: frozenset[str]) -> None:
    """Refuse options that do not apply to a detector, which is of a ``kind`` in words.

    Raises:
        ConfigError: there are some; the message names them.
    """
    if wrong := sorted(source.options - known):
        preset = f" (of --{prefix}normalise)" if {"mean", "std"} <= set(wrong) else ""
        names = ", ".join(f"--{prefix}{name}" for name in wrong)
        raise ConfigError(f"{source.path} is {kind}; leave out {names}{preset}")


def made_from_onnx(manifest: Manifest) -> bool:
    """Whether one of the bundle's detectors, or all, were ONNX files."""
    sources = (manifest.source, *manifest.further_sources)
    return manifest.family in (ONE, SEVERAL) and any(s.config_file_name is None for s in sources)


@dataclass(frozen=True)
class Part:
    """Numbers of every box: columns of one output, or of several one after the other.

    ``axes`` names the axes of these: n images, a boxes, h and w rows and columns of cells, v the
    numbers of a box, 1 an axis of one. Columns from ``start`` to before ``stop`` are read, or
    all where ``stop`` is None.
    """

    tensors: tuple[str, ...]
    axes: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Match:
    """The outputs that a decode reads.

    ``boxes`` are one after the other the numbers of a box. ``scores`` has ``columns`` class scores
    for each box; or one confidence, whose class is in ``labels``. ``objectness`` multiplies
    scores; ``count`` is how many of the boxes are valid. ``anchors`` is the number A of boxes that
    is given on, with ``best`` those of the highest scores, filled up with nothing where ``varies``.
    ``strides`` are pixels per cell of every level, ``bins`` entries of every distribution;
    ``log_sizes`` says that sizes at peaks are logarithms.
    """

    boxes: tuple[Part, ...]
    scores: Part
    columns: int
    anchors: int
    labels: Part | None = None
    objectness: Part | None = None
    count: Part | None = None
    best: bool = False
    varies: bool = False
    coding: Coding = Coding.PLAIN
    strides: tuple[int, ...] = ()
    bins: int = 0
    log_sizes: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that is read."""
        more = (self.scores, self.labels, self.objectness, self.count)
        return (*self.boxes, *(part for part in more if part is not None))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the outputs that are read, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.tensors))

    @property
    def batched(self) -> bool:
        """Whether every output has an axis for several images."""
        return all("n" in part.axes for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class DetectorPlan(Match):
    """Everything that fixes how a detector's outputs become boxes and class scores.

    ``class_numbers`` holds the file's own number of each of the detector's classes: a label, or a
    column. ``bundle_classes`` holds for every class of the bundle the detector's class, -1 where
    it has none; empty until that is known. ``candidates`` is how many boxes of the largest scores
    for the bundle's classes are given on, None for all.
    """

    decode: Decode
    layout: Layout
    image: ImageSpec
    class_numbers: tuple[int, ...]
    score_kind: Scores = Scores.PROBABILITIES
    cell_offset: float = 0.5
    unit: BoxUnit = BoxUnit.PIXELS
    box_format: BoxFormat = BoxFormat.XYXY
    bundle_classes: tuple[int, ...] = ()
    candidates: int | None = None

    @property
    def rows(self) -> int:
        """How many boxes are given on."""
        return self.anchors if self.candidates is None else min(self.candidates, self.anchors)
