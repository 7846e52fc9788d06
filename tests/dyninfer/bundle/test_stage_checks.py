"""Stages are hashed while others open, and none opens before its own hash was compared."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

import dyninfer
from dyninfer import BackendUnavailable, Bundle, BundleError
from dyninfer.bundle.folder import StageChecks
from dyninfer.engines import open_backend
from dyninfer.engines.ort.backend import OrtBackend, OrtEngine
from dyninfer.runtime.session import Session
from tests import support


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return support.write_two_exits(tmp_path / "two.dyn")


def change(bundle: Path, *stages: str) -> None:
    for stage in stages:
        with (bundle / "onnx" / f"{stage}.onnx").open("ab") as file:
            file.write(b"\0")


@pytest.fixture
def opened_and_closed(monkeypatch) -> tuple[list[str], list[str]]:
    opened: list[str] = []
    closed: list[str] = []
    real_open, real_close = OrtBackend.open, OrtEngine.close

    def watch_open(self, name, *rest):
        opened.append(name)
        return real_open(self, name, *rest)

    def watch_close(self):
        closed.append(self.name)
        real_close(self)

    monkeypatch.setattr(OrtBackend, "open", watch_open)
    monkeypatch.setattr(OrtEngine, "close", watch_close)
    return opened, closed


@pytest.mark.parametrize("late", ["first", "router", "head", "second"])
def test_no_stage_opens_before_it_was_hashed(made, monkeypatch, opened_and_closed, late) -> None:
    opened, _ = opened_and_closed
    held, check = threading.Event(), Bundle.check_stage

    def slowly(self, name, checked):
        if name == late:
            assert held.wait(10)
        return check(self, name, checked)

    monkeypatch.setattr(Bundle, "check_stage", slowly)
    loaded = []
    loader = threading.Thread(target=lambda: loaded.append(dyninfer.load(made)))
    loader.start()
    loader.join(0.2)
    order = ["first", "router", "head", "second"]
    assert not loaded
    assert set(opened) <= set(order[: order.index(late)])
    held.set()
    loader.join(30)
    assert opened == order
    loaded[0].close()


@pytest.mark.parametrize("stage", ["first", "router", "head", "second"])
def test_a_changed_stage_is_never_opened_and_those_before_it_are_closed(
    made, opened_and_closed, stage
) -> None:
    opened, closed = opened_and_closed
    change(made, stage)
    with support.refuses(BundleError, f"{stage}.onnx", "changed after the export"):
        dyninfer.load(made)
    assert stage not in opened
    assert sorted(closed) == sorted(opened)


def test_the_smallest_stage_opens_first_and_the_next_is_hashed_meanwhile(
    made, opened_and_closed
) -> None:
    opened, _ = opened_and_closed
    parameters = {"first": 300, "router": 2, "head": 300, "second": 20}
    support.reseal(
        made,
        lambda m: [m["stages"][name].update(parameters=n) for name, n in parameters.items()],
    )
    dyninfer.load(made).close()
    assert opened == ["router", "second", "first", "head"]


def test_a_changed_stage_that_the_route_leaves_out_is_noticed(made, opened_and_closed) -> None:
    opened, closed = opened_and_closed
    spare = (made / "onnx" / "head.onnx").read_bytes()
    (made / "onnx" / "spare.onnx").write_bytes(spare)
    support.reseal(
        made,
        lambda m: m["stages"].update(spare=m["stages"]["head"] | {"file": "onnx/spare.onnx"}),
    )
    with dyninfer.load(made):
        pass
    opened.clear()
    closed.clear()
    change(made, "spare")
    with support.refuses(BundleError, "spare.onnx", "changed"):
        dyninfer.load(made)
    assert sorted(closed) == sorted(opened)


def test_of_several_failures_the_first_file_of_the_manifest_is_named(made) -> None:
    change(made, "second", "head")
    (made / "parity.json").write_text("{}")
    for options in ({}, {"backend": "none"}, {"precision": "fp13"}, {"device": "cuda:99"}):
        with support.refuses(BundleError, "head.onnx"):
            dyninfer.load(made, **options)
    (made / "onnx" / "router.onnx").unlink()
    with support.refuses(BundleError, "router.onnx", "missing"):
        dyninfer.load(made)


def test_records_are_checked_before_a_backend_is_asked_for(made) -> None:
    (made / "parity.json").write_text("{}")
    with support.refuses(BundleError, "parity.json"):
        dyninfer.load(made, backend="none")
    (made / "parity.json").unlink()
    with support.refuses(BackendUnavailable, "'none'"):
        dyninfer.load(made, backend="none")


def swap(path: Path) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def rewrite(path: Path) -> None:
    times = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as somebody would to hide it


def exchange_folder(path: Path) -> None:
    """Another folder stands in its place for a moment, as for whoever opens the file then."""
    aside, folder = path.parent.with_name("aside"), path.parent
    folder.rename(aside)
    shutil.copytree(aside, folder)
    shutil.rmtree(folder)
    aside.rename(folder)


@pytest.mark.parametrize("meddle", [swap, rewrite, exchange_folder])
def test_a_file_that_is_written_between_check_and_use_is_refused(
    made, monkeypatch, meddle, opened_and_closed
) -> None:
    opened, closed = opened_and_closed
    wait = StageChecks.wait

    def meddling(self, name):
        wait(self, name)
        if name == "head":
            meddle(made / "onnx" / "head.onnx")

    monkeypatch.setattr(StageChecks, "wait", meddling)
    with support.refuses(BundleError, "head.onnx", "while it was opened"):
        dyninfer.load(made)
    assert sorted(closed) == sorted(opened) == ["first", "head", "router"]


def test_whoever_has_checked_the_files_opens_them_without(made) -> None:
    with dyninfer.Detector(
        Bundle.open(made), Session(Bundle.open(made), open_backend()), 8
    ) as detector:
        assert len(detector.engines) == 4


def test_an_interrupt_ends_the_checks(made, monkeypatch) -> None:
    hashed = []
    monkeypatch.setattr(Bundle, "check_stage", lambda _, name, _checked: hashed.append(name))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Bundle, "check_records", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dyninfer.load(made)
    assert not [t for t in threading.enumerate() if t.name.startswith("dyninfer-hash")]
