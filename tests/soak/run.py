"""Everything at once: threads, policies, audits, forks, interruptions, loading and closing."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np

import dyninfer
from tests.soak.callers import THRESHOLDS, Tally, call, write_bundle

CALLERS = 3
PATIENCE_S = 60.0
"""How long anything may take to end before it counts as hanging."""


class Interruption(Exception):  # noqa: N818  # an application's own, and no error
    """What a signal's handler raises in the middle of a call."""


class Growth:
    """Memory, descriptors and threads of this process over time."""

    UNITS = ("kB of memory", "descriptors", "threads")

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, float, float]] = []

    def sample(self) -> None:
        """Take one."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 1024
        places = (Path("/proc/self/fd"), Path("/proc/self/task"))
        descriptors, threads = (sum(1 for _ in place.iterdir()) for place in places)
        self.samples.append((time.monotonic(), memory, descriptors, threads))

    def per_minute(self) -> dict[str, float]:
        """The slope of each by least squares, without the first third, in which caches fill."""
        kept = np.array(self.samples[len(self.samples) // 3 :])
        minutes = (kept[:, 0] - kept[0, 0]) / 60
        return {
            unit: float(np.polyfit(minutes, kept[:, column], 1)[0])
            for column, unit in enumerate(self.UNITS, 1)
        }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of failures, which a soak means and counts."""
    logger = logging.getLogger("dyninfer")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@_quiet()
def soak(folder: Path, seconds: float, seed: int = 0) -> tuple[Tally, Growth]:
    """Run for so many seconds, in the main thread; the tally tells of what went wrong."""
    bundle, tally, growth = write_bundle(folder / "soak.dyn"), Tally(), Growth()
    stop = threading.Event()
    detector = dyninfer.load(bundle, on_failure="degrade", max_batch=8)

    def repeat(name: str, act: Callable[[Random], None]) -> threading.Thread:
        def run() -> None:
            rng = Random(f"{name}:{seed}")
            while not stop.is_set():
                _guarded(lambda: act(rng), tally, name)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    threads = [
        repeat(f"caller {n}", lambda rng: call(detector, rng, tally)) for n in range(CALLERS)
    ]
    threads.append(repeat("policies", lambda rng: _change_policy(detector, rng)))
    threads.append(repeat("audits", lambda rng: _watch(detector, rng)))
    threads.append(repeat("openers", lambda rng: _open_and_close(bundle, rng, tally)))
    rng, end = Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        growth.sample()
        for _ in range(20):
            _guarded(lambda: _interrupted_call(detector, rng, tally), tally, "interruptions")
        _guarded(lambda: _fork(detector, rng, tally), tally, "forks")
    stop.set()
    for thread in [*threads, threading.Thread(target=detector.close, name="close", daemon=True)]:
        if thread.ident is None:
            thread.start()
        thread.join(PATIENCE_S)
        if thread.is_alive():
            tally.lost.append(f"{thread.name} hangs")
    growth.sample()
    return tally, growth


def _guarded(act: Callable[[], None], tally: Tally, name: str) -> None:
    try:
        act()
    except Exception as error:  # nothing here may fail
        tally.lost.append(f"{name}: {type(error).__name__}: {error}")


def _change_policy(detector: dyninfer.Detector, rng: Random) -> None:
    detector.policy = dyninfer.Threshold(rng.choice(THRESHOLDS))
    time.sleep(0.002)


def _watch(detector: dyninfer.Detector, rng: Random) -> None:
    """A monitor with audits, started anew now and then."""
    baseline = np.linspace(0, 1, 200)
    detector.monitor.start(baseline=baseline, audit_share=0.5, seed=rng.randrange(1000))
    time.sleep(rng.uniform(0.05, 0.5))
    detector.monitor.report()
    if rng.random() < 0.5:
        detector.monitor.stop()


def _open_and_close(bundle: Path, rng: Random, tally: Tally) -> None:
    with dyninfer.load(bundle, on_failure="degrade") as detector:
        call(detector, rng, tally)
    time.sleep(0.02)


def _interrupted_call(detector: dyninfer.Detector, rng: Random, tally: Tally) -> None:
    armed = True

    def interrupt(*_: object) -> None:
        if armed:
            raise Interruption

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-3))
        call(detector, rng, tally)
    except Interruption:
        tally.interrupted += 1
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _fork(detector: dyninfer.Detector, rng: Random, tally: Tally) -> None:
    """A child of a process whose threads are busy predicts, closes and ends."""
    child = multiprocessing.get_context("fork").Process(
        target=_in_child, args=(detector, rng.random())
    )
    child.start()
    child.join(PATIENCE_S)
    tally.forks += 1
    if child.exitcode != 0:
        tally.lost.append(f"a forked child ended with {child.exitcode}")
        child.kill()
    child.join()
    child.close()


def _in_child(detector: dyninfer.Detector, seed: float) -> None:
    faulthandler.dump_traceback_later(PATIENCE_S / 2)  # tells where a child hangs
    tally, rng = Tally(), Random(seed)
    for _ in range(5):
        call(detector, rng, tally)
    detector.close()
    if tally.wrong:
        raise AssertionError(tally.wrong[0])
    faulthandler.cancel_dump_traceback_later()
