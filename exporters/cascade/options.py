"""What a user may say of a detector, and what is worked out where nothing is said."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dyninfer.images.spec import ColorOrder, ImageSpec, ResizeMode

Triple = tuple[float, float, float]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


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
    """One ONNX detector of a cascade, and what its user knows of it; None is worked out.

    Attributes:
        path: the ONNX file.
        decode: what its outputs mean.
        size: height and width of its input, in pixels.
        mean, std: per channel in tensor order, in units of 0 to 255: (pixel - mean) / std.
        layout: axes of its image input.
        color: order of its colour channels.
        resize: how a picture is fitted into its input.
        class_names: a text file with one name per line, or a data set's YAML.
        boxes: unit of its boxes, for ``detections``, ``boxes-scores`` and ``yolo-end2end``.
        box_format: of ``boxes-scores``, and of the four outputs of ``yolo-end2end``.
        cell_offset: of ``nanodet``: where a cell's centre lies, in cells: 0.5, or 0 for
            NanoDet-Plus.
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

    Attributes:
        tensors: names of the outputs, in the decode's own order.
        classes: number of the detector's own classes; None where the shapes do not tell it.
        anchors: number A of boxes that it ends in.
        row_width: of ``detections`` and ``yolo-end2end``: numbers per row, 0 for four outputs.
        rows_last: of ``yolov8``: True for (N, A, 4 + C) instead of (N, 4 + C, A).
        strides: of ``nanodet``: pixels per cell of every level, in the order of the tensors.
        bins: of ``nanodet``: entries of every side's distribution.
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

    Attributes:
        decode: what the outputs mean.
        layout: axes of its image input.
        image: its size and normalisation.
        cell_offset: of ``nanodet``.
        boxes, box_format: unit and order of the boxes, for the decodes that leave them open.
        columns: for every class of the bundle the detector's own class, -1 where it has none.
    """

    classes: int
    decode: Decode
    layout: Layout
    image: ImageSpec
    cell_offset: float = 0.5
    boxes: BoxUnit = BoxUnit.PIXELS
    box_format: BoxFormat = BoxFormat.XYXY
    columns: tuple[int, ...] = ()
