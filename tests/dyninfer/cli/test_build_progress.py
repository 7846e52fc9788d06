from __future__ import annotations

import pytest
from rich.progress import Progress

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.cli.build_conversions import COMPARING, _Bars, _expected_work, _WholeBar
from dyninfer.exporters.precision.settings import CALIBRATING, SEARCHING


@pytest.fixture
def progress() -> Progress:
    return Progress(disable=True)


def test_the_whole_bar_counts_work_and_what_was_left_out(progress) -> None:
    whole = _WholeBar(progress, {"a": 10, "search a": 30, "b": 20, COMPARING: 40})
    bars = _Bars(progress, whole.update)
    (bar,) = progress.tasks

    def at(what: str, done: int, total: int) -> float:
        bars.report(what, done, total)
        return bar.completed

    assert (bar.description, bar.total, bar.completed) == ("everything", 100, 0)
    assert at("a", 1, 2) == 5
    assert at("a", 2, 2) == 10
    assert at("b", 1, 4) == 45  # nothing was searched
    assert at("something else", 1, 4) == 45
    assert at(COMPARING, 5, 5) == 100
    shown = {task.description: (task.completed, task.total) for task in progress.tasks[1:]}
    assert shown == {"a": (2, 2), "b": (1, 4), "something else": (1, 4), COMPARING: (5, 5)}


def test_the_work_is_that_of_the_stages_that_become_int8(small_bundle) -> None:
    manifest = Bundle.open(small_bundle).manifest
    macs = {name: stage.macs for name, stage in manifest.stages.items()}
    plan = {"first": Precision.INT8, "head": Precision.FP16, "second": Precision.INT8}
    few, many = (_expected_work(manifest, plan, pictures) for pictures in (1, 10))
    assert list(few) == [
        word + stage for stage in ("first", "second") for word in (CALIBRATING, SEARCHING)
    ]
    assert few[CALIBRATING + "first"] == 2 * macs["first"]
    assert few[CALIBRATING + "second"] == macs["first"] + 2 * macs["second"]
    assert many[CALIBRATING + "second"] == 10 * few[CALIBRATING + "second"]
    assert many[SEARCHING + "second"] == few[SEARCHING + "second"] > 0


def test_steps_fit_beside_their_bars_in_80_columns() -> None:
    """Of spinner, bar, numbers, words and gaps, 30 columns are left."""
    assert all(len(word + "branch_320") <= 30 for word in (CALIBRATING, SEARCHING))
    assert len(COMPARING) <= 30
