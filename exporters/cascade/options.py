"""What a user may say of a detector, and what is worked out where nothing is said."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dyninfer.images.spec import ColorOrder, ImageSpec, ResizeMode

Triple = tuple[float, float, float]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
ONE, SEVERAL = "onnx", "cascade"
"""The families of bundles that are made from one ONNX file, and from several."""
ALONE = "detector"
"""The stage of a detector that is no part of a cascade."""


class Decode(str, Enum):
    """What a detector's outputs mean; see :mod:`dyninfer.exporters.cascade.decodes`."""

    YOLOV5 = "yolov5"
    YOLOV8 = "yolov8"
    YOLO_END2END = "yolo-end2end"
    NANODET = "nanodet"
    DETECTIONS = "detections"
    BOXES_SCORES = "boxes-scores"


class Layout(str, Enum):
    """Order of the axes of a detector's image input."""

    NCHW = "nchw"
    NHWC = "nhwc"


class BoxFormat(str, Enum):
    """The four numbers of a box: corners, centre and size, or corner and size."""

    XYXY = "xyxy"
    CXCYWH = "cxcywh"
    XYWH = "xywh"
    YXYX = "yxyx"


class BoxUnit(str, Enum):
    """What box coordinates count: pixels of the input tensor, or shares of its sides."""

    PIXELS = "pixels"
    NORMALISED = "normalised"


class ClassList(str, Enum):
    """Which classes a bundle of several detectors has."""

    LAST = "last"
    COMMON = "common"
    UNION = "union"


@dataclass(frozen=True)
class DetectorSource:
    """One ONNX detector, and what its user knows of it; None is worked out.

    ``size`` is height and width in pixels; ``mean`` and ``std`` are per channel in tensor order, in
    units of 0 to 255: (pixel - mean) / std. ``class_names`` is a text file with one name per line,
    or a data set's YAML. ``boxes`` is the unit for ``detections``, ``boxes-scores`` and
    ``yolo-end2end``; ``box_format`` is that of ``boxes-scores`` and of the four outputs of
    ``yolo-end2end``; ``cell_offset`` is where a cell's centre lies for ``nanodet``, in cells: 0.5,
    or 0 for NanoDet-Plus.
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
    boxes: BoxUnit | None = None
    box_format: BoxFormat | None = None
    cell_offset: float | None = None


@dataclass(frozen=True)
class Match:
    """The outputs that a decode reads.

    ``tensors`` are their names in the decode's own order, ``classes`` is the number of the
    detector's own (None where the shapes do not tell it), ``anchors`` the number A of boxes.
    ``row_width`` of ``detections`` and ``yolo-end2end`` are numbers per row, 0 for four outputs;
    ``rows_last`` of ``yolov8`` is True for (N, A, 4 + C) instead of (N, 4 + C, A). Of ``nanodet``,
    ``strides`` are pixels per cell of every level, and ``bins`` entries of every distribution.
    """

    tensors: tuple[str, ...]
    classes: int | None
    anchors: int
    row_width: int = 0
    rows_last: bool = False
    strides: tuple[int, ...] = ()
    bins: int = 0


@dataclass(frozen=True, kw_only=True)
class DetectorPlan(Match):
    """Everything that fixes how a detector's outputs become boxes and class scores.

    ``columns`` holds for every class of the bundle the detector's own class, -1 where it has none.
    """

    classes: int
    decode: Decode
    layout: Layout
    image: ImageSpec
    cell_offset: float = 0.5
    boxes: BoxUnit = BoxUnit.PIXELS
    box_format: BoxFormat = BoxFormat.XYXY
    columns: tuple[int, ...] = ()
