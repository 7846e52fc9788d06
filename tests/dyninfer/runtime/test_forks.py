"""Detectors in processes that were forked after they were loaded: they work, and they end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import support

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

SETUP = """
import multiprocessing, os, signal, sys, threading, time
import numpy as np
import dyninfer

IMAGES = {"images": np.load(sys.argv[2])}

def answers(detector):
    return [(o.exit_index, o.outputs["boxes_xyxy"].tolist()) for o in detector.infer(IMAGES)]

def ended(pid, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"

def in_child(work):
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(0)
    return ended(pid)

"""


def run(tmp_path: Path, script: str, options: str = "") -> str:
    """What a script prints; it is given ``detector``, loaded and used once, and ``expected``."""
    import numpy as np

    bundle = support.write_two_exits(tmp_path / "two.dyn")
    np.save(tmp_path / "images.npy", support.coded_images([(0.9, 0, 0), (0.1, 0, 1)]))
    opening = f"detector = dyninfer.load(sys.argv[1], {options})\nexpected = answers(detector)\n"
    source = SETUP + opening + textwrap.dedent(script)
    arguments = [sys.executable, "-c", source, str(bundle), str(tmp_path / "images.npy")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


CHECK = "assert answers(detector) == expected"


@pytest.mark.parametrize(
    "work",
    [
        pytest.param("pass", id="unused"),
        pytest.param(CHECK, id="used"),
        pytest.param(f"{CHECK}; detector.close()", id="used-and-closed"),
        pytest.param("detector.close()", id="closed"),
        pytest.param(f"{CHECK}; [dyninfer.load(sys.argv[1]) for _ in range(2)]", id="and-others"),
        pytest.param("assert detector.run_stage('first', IMAGES)", id="one-stage"),
    ],
)
def test_a_child_predicts_closes_and_ends_as_its_parent_does(tmp_path, work) -> None:
    script = f"""
    def work():
        {work}
    print(in_child(work), in_child(work), answers(detector) == expected)
    detector.close()
    """
    assert run(tmp_path, script).split() == ["0", "0", "True"]


def test_a_child_of_a_detector_with_a_monitor_ends_and_may_start_its_own(tmp_path) -> None:
    script = f"""
    baseline = np.linspace(0, 1, 500)
    detector.monitor.start(baseline=baseline, audit_share=0.5)
    picture = np.zeros((8, 8, 3), np.uint8)
    detector(picture)
    def work():
        assert not detector.monitor.running
        {CHECK}
        detector.monitor.start(baseline=baseline, audit_share=1.0)
        detector(picture, policy=dyninfer.AlwaysEasy())
        assert detector.monitor.finish_audits(20)
    print(in_child(work), detector.monitor.running)
    """
    assert run(tmp_path, script).split() == ["0", "True"]


def test_children_of_a_process_whose_threads_predict_work(tmp_path) -> None:
    """Calls of other threads that a fork interrupts never end in the child."""
    script = f"""
    stop = threading.Event()
    def predict():
        while not stop.is_set():
            {CHECK}
    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    def work():
        {CHECK}
        detector.close()
    print(*(in_child(work) for _ in range(8)))
    stop.set()
    for thread in threads:
        thread.join()
    """
    assert run(tmp_path, script).split() == ["0"] * 8


def test_workers_of_a_preloading_server_and_a_daemon_work(tmp_path) -> None:
    """As gunicorn with --preload, multiprocessing's fork and a double fork make them."""
    script = f"""
    def serve(_):
        return answers(detector) == expected
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(all(pool.map(serve, range(9))), end=" ")

    workers = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            while True:
                {CHECK}
        workers.append(pid)
    time.sleep(1)
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    print(*(ended(pid) for pid in workers), end=" ")

    def daemon():
        os.setsid()
        pid = os.fork()
        if pid == 0:
            {CHECK}
            sys.exit(0)
        sys.exit(ended(pid))
    print(in_child(daemon))
    """
    assert run(tmp_path, script).split() == ["True", "0", "0", "0"]


@pytest.mark.slow
def test_a_hundred_forks_lose_nothing(tmp_path) -> None:
    script = f"""
    def work():
        {CHECK}
    print({{in_child(work) for _ in range(100)}})
    """
    assert run(tmp_path, script) == "{0}\n"


def test_what_does_not_survive_a_fork_says_what_to_do(tmp_path) -> None:
    script = """
    def work():
        try:
            answers(detector)
        except dyninfer.DyninferError as error:
            assert "after it, in the child process" in str(error), error
            detector.close()
            return
        sys.exit(7)
    print(in_child(work))
    """
    assert run(tmp_path, script, "shared_threads=True").split() == ["0"]
