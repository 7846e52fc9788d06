"""What options of the public detection scripts are called here, for those who type them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Habit:
    """Options here, of which the first that a command has is meant; ``elsewhere`` if it has none.

    ``argument`` is the name of a parameter that stands without an option, which comes first.
    """

    options: tuple[str, ...]
    elsewhere: str
    argument: str | None = None


_NOT_HERE: Mapping[str, str] = {
    "train": "dyninfer trains no detectors; fit-router fits a router to a cascade",
    "tune": "dyninfer trains no detectors; calibrate measures thresholds",
    "compare": "bench --compare OLD.json NEW.json compares two records",
    "track": "dyninfer does not track; predict finds objects in pictures",
}
_CONFIDENCE = _Habit(("--confidence",), "predict and calibrate take --confidence")
_IOU = _Habit(("--iou",), "predict takes --iou")
_THRESHOLD = _Habit(
    ("--threshold", "--speed"), "predict takes --threshold (of easiness), eval and bench --speed"
)
_SIZE = _Habit(
    ("--image-size", "--size", "--first-size"),
    "the size is the bundle's: export anew with --image-size",
)
_DATA = _Habit(("--annotations", "--class-names"), "calibrate and eval take --annotations")
_WEIGHTS = _Habit(("--first",), "export takes the weights, all else the bundle that it writes")
_PICTURES = _Habit(("--images",), "predict takes pictures, calibrate and eval --images", "sources")
_OUTPUT = _Habit(("--output",), "predict and export take --output")
_BATCH = "predict takes --batch; a bundle takes any number of pictures at once"
_JSON = _Habit(("--json",), "predict takes --json")
_HALF = _Habit(("--precision",), "build takes --precision fp16")
_INT8 = _Habit((), "build takes --precision int8")
_MOST = _Habit((), "from Python: detector(image, options=dyninfer.Postprocess(max_detections=N))")
_CLASSES = _Habit((), "all classes are kept; choose by class_name in the results")
_SAVED = _Habit((), "predict writes boxes as JSON lines, and annotated pictures, in any case")
_VERSION = _Habit((), "dyninfer --version shows the version, --debug a whole traceback")
_HABITS: Mapping[str, _Habit] = {
    **dict.fromkeys(("--conf-thres", "--conf-thresh", "--conf", "--score-thr"), _CONFIDENCE),
    **dict.fromkeys(("--iou-thres", "--iou-thresh", "--nms-thres", "--nms"), _IOU),
    **dict.fromkeys(("--dy-thres", "--dy-thresh"), _THRESHOLD),
    **dict.fromkeys(("--img", "--img-size", "--imgsz", "--image-size", "--input-size"), _SIZE),
    "--data": _DATA,
    "--cfg": _Habit(("--config",), "export dynamicdet takes --config"),
    **dict.fromkeys(("--weights", "--checkpoint", "--ckpt", "--model"), _WEIGHTS),
    **dict.fromkeys(("--source", "--input", "--images"), _PICTURES),
    **dict.fromkeys(("--project", "--save-dir", "--output-dir", "--out"), _OUTPUT),
    "--exist-ok": _Habit(("--overwrite",), "export takes --overwrite"),
    **dict.fromkeys(("--save-json", "--format"), _JSON),
    **dict.fromkeys(("--save-txt", "--save-conf", "--save-img", "--save"), _SAVED),
    **dict.fromkeys(("--show", "--view-img"), _SAVED),
    **dict.fromkeys(("--max-det", "--max-detections", "--max-dets"), _MOST),
    **dict.fromkeys(("--classes", "--class", "--filter-classes"), _CLASSES),
    **dict.fromkeys(("--batch-size", "--batch"), _Habit(("--batch",), _BATCH)),
    **dict.fromkeys(("-v", "-V", "--verbose"), _VERSION),
    **dict.fromkeys(("--half", "--fp16"), _HALF),
    "--int8": _INT8,
}
_FIRST = ("bundle", "checkpoint")


_ASSIGNED = re.compile(r"(model|source|data|imgsz|conf|iou|device|format|task|mode|batch|half)=.")


def assigned(arguments: Sequence[str]) -> str | None:
    """What is wrong where options are written NAME=VALUE, and no file has that name."""
    for typed in arguments:
        if _ASSIGNED.match(typed) and not os.path.lexists(typed):
            return (
                f"{typed} is not how options are written here: give the file or bundle first, then "
                "what belongs to it, then options as --name value (dyninfer COMMAND --help)"
            )
    return None


def command_elsewhere(typed: str) -> str | None:
    """What to do instead of a command that other tools have; None where nothing is known of it."""
    return _NOT_HERE.get(typed)


def renamed(typed: str, context: Any) -> str | None:
    """What an option that a command does not have is called here, as the end of a sentence.

    None where nothing is known of it. ``context`` is one of click's, or of typer's copy of it.
    """
    habit = _HABITS.get(typed.replace("_", "-"))
    if habit is None:
        return None
    parameters = {parameter.name: parameter for parameter in context.command.params}
    if habit.argument in parameters:
        return (
            f"give them after the bundle, without an option: {context.command_path} BUNDLE PICTURES"
        )
    if habit is _WEIGHTS and (first := next(filter(parameters.get, _FIRST), None)):
        return f"give it first, without an option: {context.command_path} {first.upper()}"
    valued = {
        name: parameter.is_flag
        for parameter in parameters.values()
        if parameter.param_type_name == "option"
        for name in parameter.opts
    }
    wants_value = habit not in (_JSON,) and typed != "--exist-ok"
    found = [name for name in habit.options if name in valued and valued[name] != wants_value]
    value = " fp16" if habit is _HALF else ""
    return f"here it is {found[0]}{value}" if found else habit.elsewhere
