"""What ``calibration.json`` says: thresholds, and on what exactly they were measured.

Easiness and milliseconds depend on the engines, so the file holds a calibration for each record of
them: the newest in the file's own fields, those of other engines under ``others``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from dyninfer.bundle.documents import Frozen
from dyninfer.bundle.manifest import Precision
from dyninfer.bundle.shipped import typed
from dyninfer.errors import PolicyError
from dyninfer.results.scores import Scores
from dyninfer.types import Float64Array

CALIBRATION_FILE = "calibration.json"
SCHEMA_VERSION: Literal[2] = 2
MOST_KEPT = 16
"""Calibrations in one file; upgrades of a backend would add to them for ever."""
_Share = Annotated[float, Field(ge=0, le=1)]


class EngineRecord(Frozen):
    """The opened engines, as far as easiness and time depend on them.

    ``image_inputs`` maps an image input to its size as ``HxW``. ``device_name`` is the processor:
    times hold for it alone, thresholds for every processor with the same engines.
    """

    stages_sha256: Mapping[str, str]
    precision: Mapping[str, Precision]
    image_inputs: Mapping[str, str]
    backend: str
    backend_version: str
    provider: str
    device_name: str

    @property
    def precision_words(self) -> str:
        """``fp32`` where all stages have it, else each stage's own."""
        return _values(self.precision)

    def differences(self, other: EngineRecord, *, times: bool) -> list[str]:
        """What differs, in words; the processor counts only where ``times`` matter."""
        found = []
        for field in type(self).model_fields:
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine == theirs or (field == "device_name" and not times):
                continue
            if field == "stages_sha256":
                names = sorted({*mine, *theirs})
                changed = [name for name in names if mine.get(name) != theirs.get(name)]
                found.append(f"other stage files ({', '.join(changed)})")
            else:
                found.append(f"{field.replace('_', ' ')} {_values(mine)}, not {_values(theirs)}")
        return found


class ImageSet(Frozen):
    """The pictures a calibration was made on.

    ``sha256`` is the hash of the sorted hashes of their files, so that order and names do not
    matter. ``labels_sha256`` is that of the annotations, where there were any.
    """

    count: Annotated[int, Field(ge=2)]
    sha256: str
    labels_sha256: str | None = None


class Figures(Frozen):
    """What some choice of ways gives on the calibration's images.

    Attributes:
        mean_ms: predicted milliseconds of an image, from each way's own.
        mean_macs: multiply-accumulates of an image, from each way's own, what decides included;
            None in an older calibration.
        scores: against the truth, where it is known.
        agreement: with the hardest way's answers, 1 - mean loss, in [0, 1]; that is the last exit
            of a cascade, or the dearest branch.
    """

    mean_ms: Annotated[float, Field(ge=0)]
    mean_macs: Annotated[float, Field(ge=0)] | None = None
    scores: Scores = Scores()
    agreement: _Share


class WayFigures(Figures):
    """What comes of every image taking one way.

    ``share`` of the images takes it by the default policy; None in a calibration of schema 1.
    """

    share: _Share | None = None


class CalibrationRow(Figures):
    """One threshold and what it does on the calibration's images.

    Attributes:
        percentile: of the easiness, 0 to 100; what share was asked for.
        threshold: images of less easiness continue.
        hard_fraction: share that did reach the last exit; less than asked for where many images
            have the same easiness.
    """

    percentile: Annotated[float, Field(ge=0, le=100)]
    threshold: Annotated[float, Field(ge=0)]
    hard_fraction: _Share


class BiasRow(Figures):
    """One cost bias of a chooser; ``shares`` of the images take each branch with it."""

    bias: float
    shares: tuple[_Share, ...]


class Certificate(Frozen):
    """A threshold with a guarantee: at or above it, the risk is at most ``risk``.

    The risk is the expected loss of an image against always running the last exit, 1 - F1 of
    what either finds, in [0, 1]. The guarantee holds with probability ``confidence`` over the
    draw of the calibration's images, if later ones are exchangeable with them.
    """

    risk: _Share
    confidence: _Share
    threshold: Annotated[float, Field(ge=0)]
    hard_fraction: _Share
    measured_risk: _Share
    method: str


class Calibration(Frozen):
    """What every way, and every threshold, gives on some images, for one set of engines.

    Attributes:
        metrics: names of the two scores.
        policy: the bundle's default, in words; what the shares of ``ways`` are of.
        ways: every way for itself.
        routed: what the default policy gives; None in a calibration of schema 1.
        easiness: one tuple for every router of a cascade, with one value for every image; None
            for NaN. Empty where nothing makes an easiness.
        choice_scores: one tuple for every branch, with a chooser's score of every image; None for
            NaN. Empty where there is no chooser.
        losses: one tuple for every way but the hardest, with every image's loss there against
            that, in [0, 1].
        exit_ms: one tuple for every way, with measured milliseconds of images that take it, one
            at a time, from the decoded picture to answers.
        rows: the table of thresholds, by rising percentile; empty where there is no easiness.
            That of all images hard is in ``ways``: the largest easiness is not below itself.
        biases: the table of a chooser's cost biases, by rising cost; empty without a chooser.
        certificate: what ``--risk`` certified, if it was asked for.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    written_by: str
    engine: EngineRecord
    images: ImageSet
    metrics: tuple[str, str]
    policy: str = ""
    ways: Annotated[tuple[WayFigures, ...], Field(min_length=1)]
    routed: Figures | None = None
    easiness: tuple[tuple[float | None, ...], ...]
    choice_scores: tuple[tuple[float | None, ...], ...] = ()
    losses: tuple[tuple[_Share, ...], ...]
    exit_ms: tuple[Annotated[tuple[float, ...], Field(min_length=1)], ...]
    rows: tuple[CalibrationRow, ...]
    biases: tuple[BiasRow, ...] = ()
    certificate: Certificate | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_schema_1(cls, payload: object) -> object:
        """Schema 1 had cascades of detectors alone."""
        if not isinstance(payload, dict) or payload.get("schema_version") != 1:
            return payload
        new = {**payload, "schema_version": SCHEMA_VERSION, "metrics": ("AP", "AP50")}
        try:
            last = {"primary": new.pop("last_exit_ap", None)}
            last["secondary"] = new.pop("last_exit_ap50", None)
            new["rows"] = [_row_of_schema_1(row) for row in payload["rows"]]
            agreements = [*(1 - float(np.mean(lost)) for lost in payload["losses"]), 1.0]
            new["ways"] = [
                {"mean_ms": float(np.mean(samples)), "agreement": agreement}
                for samples, agreement in zip(payload["exit_ms"], agreements, strict=True)
            ]
            new["ways"][-1]["scores"] = last
        except (KeyError, TypeError, ValueError, AttributeError):
            return payload  # a broken one: the model says how
        return new

    @model_validator(mode="after")
    def _one_entry_for_each(self) -> Calibration:
        for name in ("easiness", "choice_scores", "losses"):
            if any(len(column) != self.images.count for column in getattr(self, name)):
                raise ValueError(f"{name} does not hold one value for each image")
        if not len(self.losses) == len(self.exit_ms) - 1 == len(self.ways) - 1:
            raise ValueError("losses, exit_ms and ways do not fit one route")
        if len(self.easiness) not in (0, len(self.losses)):
            raise ValueError("easiness and losses do not fit one cascade")
        if bool(self.easiness) != (len(self.rows) > 1):
            raise ValueError(f"rows are {len(self.rows)} for the easiness of {len(self.easiness)}")
        scored = len(self.choice_scores)
        if scored not in (0, len(self.ways)) or (scored and not self.macs):
            raise ValueError("choice_scores and the ways' mean_macs do not fit one select route")
        if any(len(row.shares) != scored for row in self.biases) or bool(self.biases) != bool(
            scored
        ):
            raise ValueError("biases do not fit the branches")
        return self

    @property
    def macs(self) -> tuple[int, ...]:
        """Multiply-accumulates of an image that takes each way; empty in an older calibration."""
        known = [way.mean_macs for way in self.ways if way.mean_macs is not None]
        return tuple(map(round, known)) if len(known) == len(self.ways) else ()

    @property
    def dearest(self) -> int:
        """The way that costs most: of a cascade the last."""
        last_first = range(len(self.ways) - 1, -1, -1)
        chosen = self.choice_scores and self.macs
        return max(last_first, key=self.macs.__getitem__) if chosen else last_first[0]

    @property
    def choice_scores_array(self) -> Float64Array:
        """(branches, N) scores by a chooser, NaN where it said so."""
        return np.array(self.choice_scores, np.float64).reshape(-1, self.images.count)

    @property
    def easiness_array(self) -> Float64Array:
        """(routers, N) easiness, NaN where a router said so."""
        return np.array(self.easiness, np.float64).reshape(-1, self.images.count)

    @property
    def losses_array(self) -> Float64Array:
        """(ways - 1, N) loss of every image at each other way against the hardest."""
        return np.array(self.losses, np.float64).reshape(-1, self.images.count)


def _row_of_schema_1(row: dict[str, Any]) -> dict[str, Any]:
    scores = {"primary": row.get("ap"), "secondary": row.get("ap50")}
    return {key: row[key] for key in row if key not in ("ap", "ap50")} | {"scores": scores}


class CalibrationFile(Calibration):
    """The whole file: the newest calibration, and those of other engines, the newest first."""

    others: tuple[Calibration, ...] = ()

    @property
    def all(self) -> tuple[Calibration, ...]:
        """Every calibration, the newest first."""
        fields = {name: getattr(self, name) for name in Calibration.model_fields}
        return (Calibration.model_construct(**fields), *self.others)


def add_calibration(older: Sequence[Calibration], new: Calibration) -> CalibrationFile:
    """The file with one more; it replaces that of the same engines, and the oldest of too many."""
    kept = [entry for entry in older if entry.engine != new.engine]
    return CalibrationFile(**dict(new), others=tuple(kept[: MOST_KEPT - 1]))


def calibrate_command(bundle: Path, options: str) -> str:
    """The command that calibrates engines opened with these options, as a shell takes it."""
    return f"dyninfer calibrate {typed(bundle)} --images FOLDER{options}"


def check_calibration(
    calibrations: Sequence[Calibration],
    engine: EngineRecord,
    asked: str,
    command: str,
    *,
    times: bool,
) -> Calibration:
    """The calibration that holds for these engines.

    Args:
        calibrations: all of the bundle's, the newest first.
        engine: what is open.
        asked: the policy that needs one, for the message.
        command: what makes one for these engines.
        times: whether the measured milliseconds are needed too.

    Raises:
        PolicyError: there is none, or they were made on another engine, precision, shape or,
            where times matter, processor; the message names the command to run.
    """
    if not calibrations:
        raise PolicyError(f"{asked} needs a calibration and the bundle has none; run: {command}")
    # of several that fit, the one from this processor
    nearest = min(calibrations, key=lambda entry: len(entry.engine.differences(engine, times=True)))
    if differences := nearest.engine.differences(engine, times=times):
        which = "the bundle's was" if len(calibrations) == 1 else "the nearest of the bundle's was"
        raise PolicyError(
            f"{asked} needs a calibration of these engines, but {which} made with "
            f"{'; '.join(differences)}; run: {command}"
        )
    return nearest


def _values(given: str | Mapping[str, object]) -> str:
    if isinstance(given, str):
        return given
    shown = {name: str(getattr(value, "value", value)) for name, value in given.items()}
    if len({*shown.values()}) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{name}={value}" for name, value in shown.items())
