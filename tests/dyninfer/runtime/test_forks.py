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


SLOW_TO_OPEN = """
from dyninfer.engines.ort import runtime
lock, begun, real = threading.Lock(), threading.Event(), runtime.ort.InferenceSession
def slowly(*given, **named):
    with lock:  # as C++ guards what it sets up once
        begun.set()
        time.sleep(0.3)
        return real(*given, **named)
runtime.ort.InferenceSession = slowly
opener = threading.Thread(target=dyninfer.load, args=[sys.argv[1]])
opener.start()
begun.wait()
"""


@pytest.mark.parametrize("work", [CHECK, "dyninfer.load(sys.argv[1])"])
def test_a_fork_waits_for_what_another_thread_opens(tmp_path, work) -> None:
    """Or the child would wait for ever for a lock whose owner it does not have."""
    script = f"""
    def work():
        {work}
    print(in_child(work), in_child(work))
    opener.join()
    """
    assert run(tmp_path, SLOW_TO_OPEN + textwrap.dedent(script)).split() == ["0", "0"]


def test_a_thread_may_fork_while_it_opens_itself(tmp_path) -> None:
    """A signal's handler does, say."""
    script = f"""
    from dyninfer.engines.ort import runtime
    real, ends = runtime.ort.InferenceSession, []
    def work():
        {CHECK}
    def forking(*given, **named):
        runtime.ort.InferenceSession = real
        ends.append(in_child(work))
        return real(*given, **named)
    runtime.ort.InferenceSession = forking
    with dyninfer.load(sys.argv[1]) as other:
        print(*ends, answers(other) == expected)
    """
    assert run(tmp_path, script).split() == ["0", "True"]


def test_a_fork_that_cannot_wait_any_longer_leaves_a_child_that_says_so(tmp_path) -> None:
    script = """
    from dyninfer import forks
    forks.PATIENCE_S = 0.05
    def work():
        try:
            answers(detector)
        except dyninfer.BackendUnavailable as error:
            assert "fork before, or when all bundles are open" in str(error), error
            return
        sys.exit(7)
    print(in_child(work), answers(detector) == expected)
    opener.join()
    print(in_child(lambda: answers(detector)))
    """
    assert run(tmp_path, SLOW_TO_OPEN + textwrap.dedent(script)).split() == ["0", "True", "0"]


def test_what_the_garbage_collector_finds_in_a_child_is_not_freed_there(tmp_path) -> None:
    """An error's traceback holds what belongs to a session that was closed long ago."""
    script = """
    import gc, pathlib
    from tests.soak import callers
    gc.disable()
    failing = dyninfer.load(callers.write_bundle(pathlib.Path(sys.argv[2]).parent / "soak.dyn"))
    trouble = {"images": np.full((1, 3, 8, 8), callers.FAILING, np.float32)}
    try:
        failing.infer(trouble, policy=dyninfer.AlwaysHard())
    except dyninfer.EngineRunError as error:
        error.kept = error
    failing.close()
    print(in_child(gc.collect))
    """
    assert run(tmp_path, script).split() == ["0"]


def test_thirty_forks_lose_nothing(tmp_path) -> None:
    script = f"""
    def work():
        {CHECK}
    print({{in_child(work) for _ in range(30)}})
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
    assert run(tmp_path, script, "threads='shared'").split() == ["0"]
