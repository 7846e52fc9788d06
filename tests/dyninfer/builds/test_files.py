from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from dyninfer.builds.files import Making, build_lock, make_build, new_build
from dyninfer.builds.search import list_builds, read_build
from dyninfer.builds.spec import BuildSpec, own_precision, source_hashes
from dyninfer.bundle.folder import Bundle
from dyninfer.errors import EngineBuildError
from tests import support


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))


def spec_of(bundle: Bundle) -> BuildSpec:
    return BuildSpec(
        backend="tensorrt-rtx",
        precision=own_precision(bundle.manifest),
        stages_sha256=source_hashes(bundle.manifest),
    )


def engine_files(bundle: Bundle) -> list[str]:
    return [name for name in support.files_below(bundle.path / "engines") if name != ".lock"]


def test_a_build_holds_its_record_and_one_engine_for_each_stage(bundle: Bundle) -> None:
    opened = make_build(bundle, spec_of(bundle), make_engine=lambda name, _: name.encode())

    assert {path.name for path in opened.path.iterdir()} == {
        "build.json",
        *(f"{index}-{name}.engine" for index, name in enumerate(bundle.manifest.stages)),
    }
    assert read_build(opened.path) == opened.build
    assert all(stage.engine and stage.engine.size for stage in opened.build.stages.values())


def test_what_is_there_is_not_built_again_unless_it_is_asked_for(bundle: Bundle) -> None:
    made: list[str] = []

    def make_engine(name: str, _: Path) -> bytes:
        made.append(name)
        return str(len(made)).encode()

    for replace in (False, False, True):
        opened = make_build(bundle, spec_of(bundle), Making(replace=replace), make_engine)

    assert made == 2 * list(bundle.manifest.stages)
    assert opened.stage_path(made[0]).read_bytes() == str(len(made) // 2 + 1).encode()
    assert len(list_builds(bundle)[0]) == 1


@pytest.mark.parametrize("error", [EngineBuildError("no"), KeyboardInterrupt(), MemoryError()])
def test_whatever_fails_leaves_nothing_and_keeps_the_build_that_was_there(
    bundle: Bundle, error: BaseException
) -> None:
    def fails(name: str, _: Path) -> bytes:
        if name == "second":
            raise error
        return b"half"

    with pytest.raises(type(error)):
        make_build(bundle, spec_of(bundle), make_engine=fails)
    assert engine_files(bundle) == []

    make_build(bundle, spec_of(bundle), make_engine=lambda *_: b"whole")
    before = support.files_below(bundle.path)
    with pytest.raises(type(error)):
        make_build(bundle, spec_of(bundle), Making(replace=True), fails)
    assert support.files_below(bundle.path) == before


def test_a_full_disk_is_told_and_leaves_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with support.refuses(EngineBuildError, str(bundle.path), "No space left", "free some space"):
        make_build(bundle, spec_of(bundle), make_engine=lambda *_: b"engine")
    assert engine_files(bundle) == []


def test_a_bundle_that_cannot_be_written_is_told(bundle: Bundle) -> None:
    (bundle.path / "engines").write_text("a file where the folder belongs")

    with support.refuses(EngineBuildError, str(bundle.path / "engines"), "cannot be written"):
        make_build(bundle, spec_of(bundle), make_engine=lambda *_: b"engine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(bundle: Bundle) -> None:
    bundle.path.chmod(0o500)
    try:
        with support.refuses(EngineBuildError, "cannot be written", "Permission denied"):
            make_build(bundle, spec_of(bundle), make_engine=lambda *_: b"engine")
    finally:
        bundle.path.chmod(0o700)


def test_what_a_killed_process_left_is_removed_by_the_next_build(bundle: Bundle) -> None:
    left = bundle.path / "engines" / ".0123456789abcdef.dyninfer-new-89abcdef"
    left.mkdir(parents=True)
    (left / "0-first.engine").write_bytes(b"half")

    assert list_builds(bundle) == ({}, [])
    make_build(bundle, spec_of(bundle), make_engine=lambda *_: b"engine")

    assert not left.exists()


def test_a_stage_may_have_any_name(bundle: Bundle) -> None:
    with new_build(bundle, "a" * 16) as folder:
        assert folder.parent == bundle.path / "engines"
    assert (bundle.path / "engines" / ("a" * 16)).is_dir()


def _build_counting(path: Path, started: object, counter: object) -> None:
    bundle = Bundle.open(path)

    def make_engine(_name: str, _onnx: Path) -> bytes:
        with counter.get_lock():  # type: ignore[attr-defined]
            counter.value += 1  # type: ignore[attr-defined]
        return b"engine"

    started.wait()  # type: ignore[attr-defined]
    make_build(bundle, spec_of(bundle), make_engine=make_engine)


def test_processes_that_want_the_same_build_wait_and_make_it_once(bundle: Bundle) -> None:
    context = multiprocessing.get_context("fork")
    barrier, counter = context.Barrier(3), context.Value("i", 0)
    arguments = (bundle.path, barrier, counter)
    workers = [context.Process(target=_build_counting, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert counter.value == len(bundle.manifest.stages)
    assert len(list_builds(bundle)[0]) == 1


def test_who_waits_is_told_once_and_gets_the_lock_when_it_is_free(bundle: Bundle) -> None:
    told, waited, got = threading.Event(), [], threading.Event()

    def wait() -> None:
        with build_lock(bundle, lambda: (waited.append(True), told.set())):
            got.set()

    waiting = threading.Thread(target=wait)
    with build_lock(bundle):
        waiting.start()
        assert told.wait(30)
        assert not got.wait(0.3)
    waiting.join(30)
    assert got.is_set()
    with build_lock(bundle, lambda: waited.append(True)):
        assert waited == [True]
