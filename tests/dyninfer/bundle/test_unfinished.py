"""Writers that are killed, interrupted or meet each other lose nothing and leave nothing."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dyninfer import Bundle, BundleError, ExportError
from dyninfer.bundle import unfinished, writing
from dyninfer.bundle.unfinished import scratch_folder, unfinished_folder, write_atomically
from dyninfer.bundle.writing import new_bundle
from tests import support

KILLS = 40


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return support.write_two_exits(tmp_path / "models" / "two.dyn")


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems and file systems that cannot exchange two names in one step."""
    monkeypatch.setattr(writing, "exchange", lambda *_: False)


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process that ends without cleaning up; its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rewrite(bundle: Path, like: Path) -> None:
    """What a new export, a verification and a build do to a bundle's folder."""
    with new_bundle(bundle, overwrite=True) as folder:
        shutil.copytree(like, folder, dirs_exist_ok=True)
    Bundle.read(bundle).write_parity({"max_abs": 1e-5})
    with unfinished_folder(bundle / "onnx" / "build") as folder:
        (folder / "engine").write_bytes(b"half")


def hidden_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def kill_writers(bundle: Path, like: Path, kills: int) -> int:
    """Kill so many writers at random moments; how many had something half done."""
    moments, left = random.Random(0), 0
    for _ in range(kills):

        def work() -> None:
            while True:
                rewrite(bundle, like)

        child = in_child(work)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert end_of(child) == -signal.SIGKILL
        left += bool(hidden_below(bundle.parent))
        Bundle.open(bundle)  # whole, whatever was under way
    rewrite(bundle, like)
    assert hidden_below(bundle.parent) == []
    assert list(bundle.parent.iterdir()) == [bundle]
    return left


def test_killed_writers_lose_nothing_and_leave_nothing_after_the_next(made, tmp_path) -> None:
    like = support.write_two_exits(tmp_path / "like.dyn")
    assert kill_writers(made, like, KILLS)  # or the test would show nothing


@pytest.mark.usefixtures("no_exchange")
def test_so_do_writers_that_need_two_steps(made, tmp_path) -> None:
    like = support.write_two_exits(tmp_path / "like.dyn")
    assert kill_writers(made, like, KILLS)


def dies_between_the_steps(bundle: Path) -> None:
    rename = Path.rename

    def dies(self: Path, target: Path) -> Path:
        done = rename(self, target)
        if "-old-" in target.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.rename = dies  # type: ignore[method-assign]  # in a child that is killed
    with new_bundle(bundle, overwrite=True) as folder:
        (folder / "bundle.json").write_text("new")


@pytest.mark.usefixtures("no_exchange")
def test_a_bundle_that_was_moved_aside_is_put_back_by_whoever_opens_it(made) -> None:
    before = support.files_below(made)
    assert end_of(in_child(lambda: dies_between_the_steps(made))) == -signal.SIGKILL
    assert not made.exists()
    Bundle.open(made)
    assert support.files_below(made) == before


@pytest.mark.usefixtures("no_exchange")
def test_and_by_whoever_writes_it_or_its_neighbour_next(made) -> None:
    before = support.files_below(made)
    assert end_of(in_child(lambda: dies_between_the_steps(made))) == -signal.SIGKILL
    with support.refuses(ExportError, "exists"), new_bundle(made):
        raise AssertionError("the block must not start")
    assert support.files_below(made) == before

    assert end_of(in_child(lambda: dies_between_the_steps(made))) == -signal.SIGKILL
    with new_bundle(made.with_name("other.dyn")) as folder:
        (folder / "bundle.json").write_text("x")
    assert support.files_below(made) == before
    assert hidden_below(made.parent) == []


@pytest.mark.usefixtures("no_exchange")
def test_an_opener_waits_for_a_living_writer_between_its_steps(made, monkeypatch) -> None:
    rename, between = Path.rename, threading.Event()

    def slowly(self: Path, target: Path) -> Path:
        done = rename(self, target)
        if "-old-" in target.name:
            between.set()
            time.sleep(0.1)
        return done

    def write() -> None:
        with new_bundle(made, overwrite=True) as folder:
            shutil.copytree(like, folder, dirs_exist_ok=True)

    like = support.write_two_exits(made.parent.parent / "like.dyn")
    monkeypatch.setattr(Path, "rename", slowly)
    writer = threading.Thread(target=write)
    writer.start()
    assert between.wait(30)
    Bundle.open(made)
    writer.join(30)
    assert hidden_below(made.parent) == []


@pytest.mark.parametrize("system", ["darwin", "linux without renameat2", "a network's disk"])
def test_where_names_cannot_be_exchanged_a_bundle_is_replaced_all_the_same(
    made, monkeypatch, system
) -> None:
    from dyninfer.bundle import exchange

    class Refusing:
        def renameat2(self, *_: object) -> int:
            return -1

    if system == "darwin":
        monkeypatch.setattr(exchange.sys, "platform", "darwin")
    else:
        library = Refusing() if "network" in system else object()
        monkeypatch.setattr(exchange.ctypes, "CDLL", lambda *_, **__: library)
        monkeypatch.setattr(exchange.ctypes, "get_errno", lambda: 22)
    with new_bundle(made, overwrite=True) as folder:
        (folder / "bundle.json").write_text("new")
    assert support.files_below(made.parent).keys() == {"two.dyn", "two.dyn/bundle.json"}


def test_a_link_that_is_replaced_leaves_what_it_leads_to(made) -> None:
    link, before = made.with_name("latest.dyn"), support.files_below(made)
    link.symlink_to(made)
    with new_bundle(link, overwrite=True) as folder:
        (folder / "bundle.json").write_text("new")
    assert not link.is_symlink()
    assert support.files_below(made) == before
    assert hidden_below(made.parent) == []


def test_of_two_that_write_one_new_name_the_later_is_refused(tmp_path) -> None:
    target, both, outcomes = tmp_path / "new.dyn", threading.Barrier(2), {}

    def write(name: str) -> None:
        try:
            with new_bundle(target) as folder:
                (folder / "bundle.json").write_text(name)
                both.wait(30)
            outcomes[name] = None
        except ExportError as error:
            outcomes[name] = str(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    first, later = sorted(outcomes, key=lambda name: outcomes[name] is not None)
    assert outcomes[first] is None
    assert "another process" in outcomes[later]
    assert "--overwrite" in outcomes[later]
    assert (target / "bundle.json").read_text() == first
    assert list(tmp_path.iterdir()) == [target]


def test_a_living_writer_is_never_swept(made) -> None:
    """Neither one of this process nor another's, whatever is written beside it meanwhile."""
    other = made.with_name("other.dyn")
    ready, proceed = os.pipe(), os.pipe()

    def write() -> None:
        with new_bundle(other) as folder:
            (folder / "bundle.json").write_text("theirs")
            os.write(ready[1], b"x")
            os.read(proceed[0], 1)

    child = in_child(write)
    os.read(ready[0], 1)
    with new_bundle(made, overwrite=True) as folder:
        (folder / "bundle.json").write_text("ours")
        write_atomically(made.parent / "file", b"x")
        with new_bundle(made, overwrite=True) as second:
            (second / "bundle.json").write_text("second")
    os.write(proceed[1], b"x")
    assert end_of(child) == 0
    assert (made / "bundle.json").read_text() == "ours"
    assert (other / "bundle.json").read_text() == "theirs"
    assert hidden_below(made.parent) == []


def test_what_dead_writers_left_is_swept_and_what_only_looks_like_it_is_not(made) -> None:
    theirs = [
        made / ".calibration.json.swp",
        made / ".calibration.json.20240101",
        made / ".calibration.json.dyninfer-new-1234",
        made / "calibration.json.dyninfer-new-12345678",
    ]
    left = [made / ".calibration.json.dyninfer-new-0123abcd", made / ".x.dyninfer-new-00000000"]
    for path in (*theirs, *left):
        path.write_text("x")
    outside = made.parent / "photos"
    outside.mkdir()
    (outside / "holiday.jpg").write_bytes(b"x")
    (made / ".link.dyninfer-new-00000000").symlink_to(outside)
    Bundle.read(made).write_parity({})
    assert all(path.exists() for path in (*theirs, outside / "holiday.jpg"))
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o077, 0o700, 0o600), (2, 0o775, 0o664)])
def test_modes_follow_the_umask(tmp_path, umask, folder, file) -> None:
    before = os.umask(umask)
    try:
        made = support.write_two_exits(tmp_path / "two.dyn")
        Bundle.read(made).write_parity({})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (made, *made.iterdir())}
    assert modes.pop("two.dyn") == modes.pop("onnx") == folder
    assert set(modes.values()) == {file}


def test_intermediate_files_are_the_users_own_and_go_with_the_next_run(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outer = os.getpid()

    def dies() -> None:
        with scratch_folder() as folder:
            (folder / "first.onnx").write_bytes(b"large")
            os.kill(os.getpid(), signal.SIGKILL)

    assert end_of(in_child(dies)) == -signal.SIGKILL
    assert os.getpid() == outer
    assert len(list(tmp_path.iterdir())) == 1
    with scratch_folder() as folder, scratch_folder() as second:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert set(tmp_path.iterdir()) == {folder, second}
    assert not list(tmp_path.iterdir())


def test_interrupts_at_any_moment_lose_nothing_and_leave_nothing_after_the_next(made) -> None:
    moments, like = random.Random(1), support.write_two_exits(made.parent.parent / "like.dyn")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def work() -> None:
        signal.signal(signal.SIGALRM, interrupted)
        for _ in range(60):
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0005, 0.01))
                for _ in range(50):  # Python drops what is raised within its collector's callbacks
                    rewrite(made, like)
            Bundle.open(made)
        os._exit(7)

    assert end_of(in_child(work)) == 7
    rewrite(made, like)
    assert hidden_below(made.parent) == []


def test_without_locks_nothing_is_swept_but_bundles_are_put_back(made, monkeypatch) -> None:
    """As on a network's disk."""

    def none(*_: object) -> None:
        raise OSError(9, "no locks here")

    left = made.with_name(".x.dyn.dyninfer-new-00000000")
    left.mkdir()
    monkeypatch.setattr(unfinished.fcntl, "flock", none)
    monkeypatch.setattr(writing, "exchange", lambda *_: False)
    assert end_of(in_child(lambda: dies_between_the_steps(made))) == -signal.SIGKILL
    Bundle.open(made)
    assert left.exists()


def test_a_folder_that_is_missing_stays_so(tmp_path) -> None:
    with support.refuses(BundleError, "does not exist"):
        Bundle.open(tmp_path / "none.dyn")
