"""Commands that a supervisor or a closed terminal ends clean up as after Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dyninfer.bundle.writing import new_bundle
from dyninfer.cli import app as command_line
from dyninfer.cli.signals import ending_signals


def start(target: Path, ignored: signal.Signals | None = None) -> tuple[int, int]:
    """A command that writes a bundle until it is ended; its process and its stderr."""
    ready, errors = os.pipe(), os.pipe()

    def write() -> None:
        with new_bundle(target) as folder:
            (folder / "bundle.json").write_text("half")
            os.write(ready[1], b"x")
            time.sleep(1 if ignored else 60)

    child = os.fork()
    if not child:
        sys.stderr = os.fdopen(errors[1], "w", buffering=1)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let jobs ignore it
        if ignored:
            signal.signal(ignored, signal.SIG_IGN)
        command_line.app.command("write")(write)
        try:
            command_line.main(["write"])
        except SystemExit as stopped:
            os._exit(int(stopped.code or 0))
        finally:
            os._exit(77)
    os.close(errors[1])
    assert os.read(ready[0], 1)
    return child, errors[0]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGTERM, "terminated"), (signal.SIGHUP, "terminated"), (signal.SIGINT, "interrupted")],
)
def test_an_ended_command_leaves_nothing_half_written(tmp_path, number, said, times) -> None:
    child, errors = start(tmp_path / "deep" / "new.dyn")
    for _ in range(1 if number is signal.SIGINT else times):
        os.kill(child, number)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(errors) as file:
        assert file.read() == f"{said}\n"
    assert status == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_what_is_ignored_stays_so(tmp_path) -> None:
    """As under nohup."""
    child, _ = start(tmp_path / "new.dyn", signal.SIGHUP)
    os.kill(child, signal.SIGHUP)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "new.dyn" / "bundle.json").exists()


def test_handlers_of_the_application_are_kept_and_ours_go_with_the_command() -> None:
    own = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        handler = signal.getsignal(signal.SIGTERM)
        with ending_signals():
            assert signal.getsignal(signal.SIGTERM) is handler
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, own)


def test_a_command_may_run_in_another_thread() -> None:
    came: list[object] = []

    def run() -> None:
        with ending_signals() as signals:
            came.append(signals)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert came == [[]]
