"""What options of the public detection scripts are called here, for those who type them."""

from __future__ import annotations

from collections.abc import Mapping
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


_CONFIDENCE = _Habit(("--confidence",), "predict and calibrate take --confidence")
_IOU = _Habit(("--iou",), "predict takes --iou")
_THRESHOLD = _Habit(
    ("--threshold", "--speed"), "predict takes --threshold (of easiness), eval and bench --speed"
)
_SIZE = _Habit(
    ("--image-size", "--first-size"), "the size is the bundle's: export anew with --image-size"
)
_DATA = _Habit(("--annotations", "--class-names"), "calibrate and eval take --annotations")
_WEIGHTS = _Habit(("--first",), "export takes the weights, all else the bundle that it writes")
_PICTURES = _Habit(("--images",), "predict takes pictures, calibrate and eval --images", "sources")
_OUTPUT = _Habit(("--output",), "predict and export take --output")
_JSON = _Habit(("--json",), "predict takes --json")
_HALF = _Habit(("--precision",), "build takes --precision fp16")
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
    **dict.fromkeys(("--save-txt", "--save-json", "--format"), _JSON),
    "--batch-size": _Habit(("--batch",), "predict and bench take --batch"),
    "--half": _HALF,
    "--fp16": _HALF,
}
_FIRST = ("bundle", "checkpoint")


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
