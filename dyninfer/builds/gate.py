"""How much of its accuracy an engine may lose, and what was measured before it was kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated

from pydantic import Field, model_validator

from dyninfer.bundle.documents import Frozen
from dyninfer.bundle.manifest import Manifest, Precision, Task
from dyninfer.errors import InputError

Limits = Mapping[str, float]
"""Name of a figure -> the most it may be, in percent, or in points of a score; as written."""

NEXT_HIGHER = {Precision.INT8: Precision.FP16, Precision.FP16: Precision.FP32}
EXAMPLES = {
    Task.DETECT: "ap=0.3,flips=1%,differ=2%",
    Task.CLASSIFY: "top-1=0.3,flips=1%,differ=2%",
    Task.FEATURES: "differ=2%",
}
SCORES = {Task.DETECT: "ap", Task.CLASSIFY: "top-1"}
"""The figure that needs labels: so many points lower, at any way of the route; none of maps."""
SHARES = ("flips", "differ")
"""Decisions that flip, at any router or chooser; results that differ, at any way, or by how much
maps do."""


class FallBack(Frozen):
    """A stage that was given the next higher precision, and what it did in the one before."""

    stage: str
    before: Precision
    after: Precision
    why: str


class GateRecord(Frozen):
    """What a build has passed.

    Attributes:
        limits: see :data:`Limits`.
        found: the largest of each figure, in the same units.
        asked: the precision of every stage that was asked for; that of the build may be higher.
        fell_back: which stages are higher, in the order they were tried.
        pictures: how many were compared.
        images_sha256: hash of the sorted hashes of the pictures that were given.
        labels_sha256: hash of their labels, where there were any.
        measured_on: what ran.
    """

    limits: Mapping[str, Annotated[float, Field(ge=0)]]
    found: Mapping[str, float]
    asked: Mapping[str, Precision]
    fell_back: tuple[FallBack, ...] = ()
    pictures: Annotated[int, Field(ge=1)]
    images_sha256: str
    labels_sha256: str | None = None
    measured_on: str

    @model_validator(mode="after")
    def _whole(self) -> GateRecord:
        if lacking := self.limits.keys() - self.found.keys():
            raise ValueError(f"limited and not measured: {', '.join(sorted(lacking))}")
        return self

    @property
    def words(self) -> str:
        """Every figure that was found, and how much was allowed."""
        return ", ".join(
            f"{name} {measured(name, self.found[name])} of {_unit(name, f'{limit:.9g}')}"
            for name, limit in self.limits.items()
        )


def parse_gate(text: str, manifest: Manifest) -> dict[str, float]:
    """``ap=0.3,flips=1%`` -> limits, for the task of a bundle.

    Raises:
        InputError: a figure is unknown, given twice or no number in its unit; the message shows
            what a gate looks like.
    """
    score = SCORES.get(manifest.task)
    known, limits = (*([score] if score else []), *SHARES), dict[str, float]()
    example = f"; a gate looks like {EXAMPLES[manifest.task]}"
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in known or not equals:
            near = get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]!r}?" if near and near[0] != name else ""
            raise InputError(
                f"{item.strip()!r} in the gate {text!r} is no limit, expected one of "
                f"{', '.join(known)}{hint}{example}"
            )
        if name in limits:
            raise InputError(f"the gate {text!r} gives {name} twice; give it once{example}")
        number = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})(%?)", value)
        unit = "points, such as 0.3" if name == score else "percent, such as 1%"
        if number is None or bool(number[2]) is (name == score) or float(number[1]) > 100:
            raise InputError(
                f"{name} is {value!r} in the gate {text!r}, expected 0 to 100 {unit}{example}"
            )
        limits[name] = float(number[1])
    return limits


def describe_gate(limits: Limits) -> str:
    """Limits as :func:`parse_gate` reads them."""
    return ",".join(f"{name}={_unit(name, f'{limit:.9g}')}" for name, limit in limits.items())


def measured(name: str, value: float) -> str:
    """A figure to three digits, in its unit: ``0.314``, or ``1.25%``."""
    return _unit(name, f"{value + 0.0:.3g}")


def _unit(name: str, number: str) -> str:
    return f"{number}%" if name in SHARES else number
