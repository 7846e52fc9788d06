"""Which stage gets which precision, as a user writes it: ``int8,router=fp32,second=fp16``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from dyninfer.builds.spec import own_precision
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.errors import InputError

_EXAMPLE = "for example fp16, or first=int8,router=fp32,second=fp16"


def parse_precision(text: str, manifest: Manifest) -> dict[str, Precision]:
    """The precision of every stage of a bundle.

    A precision alone is for all stages but the routers: these stay in float32 unless they are
    named, because they cost next to nothing and every decision depends on them. ``stage=precision``
    is for that stage alone. Stages that are not mentioned stay in float32. Items are separated by
    commas; at most one is without a stage.

    Raises:
        InputError: a stage or a precision is unknown, or something is said twice.
    """
    common: Precision | None = None
    named: dict[str, Precision] = {}
    for item in text.split(","):
        stage, equals, value = (part.strip() for part in item.rpartition("="))
        precision = _precision(value, text)
        if equals:
            _check_stage(stage, manifest.stages, named)
            named[stage] = precision
        elif common is not None:
            raise InputError(f"{text!r} names two precisions for all stages; expected at most one")
        else:
            common = precision
    plan = dict.fromkeys(manifest.stages, common or Precision.FP32)
    return plan | dict.fromkeys(manifest.deciders, Precision.FP32) | named


def plan_precision(text: str | None, manifest: Manifest) -> dict[str, Precision]:
    """The precision of every stage: as :func:`parse_precision` reads it, or the bundle's own."""
    return own_precision(manifest) if text is None else parse_precision(text, manifest)


def describe_plan(plan: Mapping[str, Precision], manifest: Manifest) -> str:
    """A plan in the shortest form that :func:`parse_precision` reads."""
    for precision in Precision:
        if parse_precision(precision.value, manifest) == dict(plan):
            return precision.value
    return ",".join(f"{stage}={precision.value}" for stage, precision in plan.items())


def _precision(value: str, text: str) -> Precision:
    try:
        return Precision(value.lower())
    except ValueError:
        known = ", ".join(precision.value for precision in Precision)
        what = f"{value!r} in {text!r}" if value else f"a missing value in {text!r}"
        raise InputError(
            f"{what} is not a precision, expected one of {known}; {_EXAMPLE}"
        ) from None


def _check_stage(stage: str, stages: Iterable[str], named: Iterable[str]) -> None:
    names = list(stages)
    if stage not in names:
        near = get_close_matches(stage, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"there is no stage {stage!r}, expected one of {', '.join(names)}{hint}")
    if stage in named:
        raise InputError(f"the precision of stage {stage!r} is given twice; give it once")
