"""Numbers that are none, too large for a float or for a message, and arguments without content."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer import BundleError, DyninferError, ExportError, InputError, PolicyError
from dyninfer.builds.spec import parse_precision
from dyninfer.bundle.documents import dump_sealed
from dyninfer.bundle.writing import check_target
from dyninfer.engines.deadline import check_deadline
from dyninfer.engines.threads import check_threads
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.images.pictures import check_max_pixels
from dyninfer.monitoring.report import MonitorSettings
from dyninfer.results.answers import TopK
from dyninfer.results.postprocess import Postprocess
from dyninfer.types import as_float, shown
from tests import support

WRONG = [10**400, 10**5000, -(10**400), float("nan"), "1", b"1", None, 1j, {}]
TAKERS = {
    "Threshold": (dyninfer.Threshold, PolicyError),
    "HardFraction": (dyninfer.HardFraction, PolicyError),
    "LatencyBudget": (lambda ms: dyninfer.LatencyBudget(ms=ms), PolicyError),
    "FramesPerSecond": (dyninfer.FramesPerSecond, PolicyError),
    "Accuracy": (dyninfer.Accuracy, PolicyError),
    "confidence": (lambda value: Postprocess(confidence=value), InputError),
    "iou": (lambda value: Postprocess(iou=value), InputError),
    "audit_share": (lambda value: MonitorSettings(audit_share=value), InputError),
    "deadline": (check_deadline, InputError),
}


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("value", WRONG, ids=[shown(value)[:12] for value in WRONG])
def test_what_is_no_number_is_refused_in_one_line_of_the_right_class(name, value) -> None:
    take, error = TAKERS[name]
    with support.refuses(error) as caught:
        take(value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [0.5, Fraction(1, 2), np.float32(0.5), np.float64(0.5)])
def test_numbers_of_every_kind_are_taken(value) -> None:
    for take, _ in TAKERS.values():
        take(value)
    assert as_float(value) == 0.5


WHOLE_TAKERS = {
    "LeaveAt": (dyninfer.LeaveAt, PolicyError),
    "EveryNth": (dyninfer.EveryNth, PolicyError),
    "hold": (lambda n: dyninfer.PreviousFrame(dyninfer.Threshold(0.5), hold=n), PolicyError),
    "max_detections": (lambda n: Postprocess(max_detections=n), InputError),
    "count": (TopK, InputError),
    "window": (lambda n: MonitorSettings(window=n), InputError),
    "max_pixels": (check_max_pixels, InputError),
    "max_batch": (lambda n: dyninfer.load("none.dyn", max_batch=n), InputError),
    "threads": (check_threads, InputError),
}


@pytest.mark.parametrize("name", WHOLE_TAKERS)
@pytest.mark.parametrize(
    "value", [True, False, -1, -(10**5000), 1.0, "1", {}], ids=lambda value: shown(value)[:12]
)
def test_what_is_no_whole_number_is_refused_in_one_line(name, value) -> None:
    take, error = WHOLE_TAKERS[name]
    with support.refuses(error, "whole number") as caught:
        take(value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["9" * 5000, "1:2:" + "9" * 400, ""])
def test_batches_of_many_digits_are_refused(text) -> None:
    with support.refuses(InputError, "batch"):
        BatchProfile.parse(text)


@pytest.mark.parametrize("value", [1, [], b"fp16", {}])
def test_a_precision_that_is_no_text_is_refused(two_exits_manifest, value) -> None:
    with support.refuses(InputError, "precision"):
        parse_precision(value, two_exits_manifest)


@pytest.fixture(scope="module")
def two_exits_manifest(tmp_path_factory):
    path = support.write_two_exits(tmp_path_factory.mktemp("bundles") / "two.dyn")
    with dyninfer.load(path) as detector:
        yield detector.manifest


@pytest.mark.parametrize("images", [[], (), "a.png", b"", None, 3, [3], [None]])
def test_pictures_to_prepare_are_checked(tmp_path, images) -> None:
    with dyninfer.load(support.write_two_exits(tmp_path / "two.dyn")) as detector:
        with support.refuses(InputError):
            detector.prepare(images)
        assert detector.prepare([np.zeros((9, 9, 3), np.uint8)])["images"].shape == (1, 3, 8, 8)


@pytest.mark.parametrize("name", ["a\udcff.dyn", "a\0b.dyn"])
def test_a_bundle_cannot_be_called_what_is_no_text(name) -> None:
    with support.refuses(ExportError, "choose another name"):
        check_target(Path(name), overwrite=False)


def test_what_is_no_text_cannot_be_sealed() -> None:
    """A file's name that is no UTF-8 reaches Python as such a text."""
    with support.refuses(BundleError, "rename"):
        dump_sealed({"source": {"file_name": "weights-\udcff.pt"}})


def test_the_working_folder_is_a_bundle_like_any_other(tmp_path, monkeypatch, capsys) -> None:
    from dyninfer.cli.app import main

    monkeypatch.chdir(support.write_two_exits(tmp_path / "two.dyn"))
    with pytest.raises(SystemExit):
        main(["fit-router", ".", "--images", str(tmp_path / "none")])
    said = capsys.readouterr().err
    assert "none" in said
    assert "internal" not in said


def test_a_message_shows_what_python_would_not() -> None:
    assert "digits" in shown(10**5000)
    assert len(shown("x" * 1000)) < 300
    assert issubclass(PolicyError, DyninferError)
