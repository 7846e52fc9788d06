"""Models for other tasks than finding boxes, told from their metadata or from what they give."""

from __future__ import annotations

import numpy as np

from dyninfer.errors import ConfigError
from dyninfer.exporters.cascade.measured import Measured
from dyninfer.exporters.cascade.onnx_file import OnnxFile
from dyninfer.exporters.cascade.options import Decode
from dyninfer.exporters.cascade.original import read_part
from dyninfer.exporters.cascade.recognise_grids import match_yolov8

_BY_METADATA = {  # Ultralytics' names of tasks
    "segment": "instance segmentation",
    "pose": "poses",
    "obb": "oriented boxes",
    "classify": "classification",
}
_MOST_OF_SCORES = 1.01
_LEAST_NUMBERS = 4  # of two keypoints
_ROUND = 3.15  # radians


def refuse_other_tasks(
    file: OnnxFile, measured: Measured, decode: Decode | None, *, settled: bool
) -> None:
    """Refuse a model whose numbers beside the boxes would be taken for scores of classes.

    ``decode`` is that by which it would be read, None where none is recognised. Where the user
    has named it (``settled``), the metadata is not asked.

    Raises:
        ConfigError: it is for masks, poses, oriented boxes or classes of whole pictures.
    """
    task = None if settled else _BY_METADATA.get(file.metadata.get("task", ""))
    if task is not None:
        why = f"its metadata says {file.metadata['task']!r}"
    else:
        dense = decode in (Decode.YOLOV8, Decode.YOLOV5, None)
        task, why = _by_outputs(measured) if dense else (None, "")
    if task is None:
        return
    if task == "classification":
        instead = "give a detector"
    else:
        instead = "give the detection model of the same kind (yolov8n, not yolov8n-seg)"
    shapes = ", ".join(f"{name} {measured.outputs[name].shape}" for name in measured.outputs)
    raise ConfigError(
        f"{file.path} is a model for {task} ({why}; outputs {shapes}), and only detectors of "
        f"upright boxes are read; {instead}"
    )


def _by_outputs(measured: Measured) -> tuple[str | None, str]:
    """The other task and what tells it; None for a detector of boxes."""
    shapes = list(measured.shapes.values())
    if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == 1 and (shapes[0][1] or 0) > 7:
        return "classification", "one row of scores for a picture"
    match = match_yolov8(measured)
    if match is None:
        return None, ""
    columns, quarter = match.columns, tuple(side // 4 for side in measured.size)
    for name, shape in measured.shapes.items():
        if len(shape) == 4 and shape[2:] == quarter and 1 < (shape[1] or 0) < columns:
            return "instance segmentation", f"{name} holds prototypes of masks"
    values = np.concatenate([read_part(match.scores, sample) for sample in measured.samples])
    beyond = (values > _MOST_OF_SCORES).any(0) | (values < 1 - _MOST_OF_SCORES).any(0)
    scored = int(np.argmax(beyond)) if beyond.any() else columns
    if not 0 < scored < columns:
        return None, ""  # scores alone, or none: logits
    rest = values[:, scored:]
    if scored == columns - 1 and np.abs(rest).max() <= _ROUND:
        return "oriented boxes", "its last numbers are angles"
    if columns - scored >= _LEAST_NUMBERS and np.abs(rest).max() > min(measured.size) / 2:
        return "poses", "numbers beside the scores are places in the picture"
    return None, ""
