"""Frames of a source, one after the other, decoded and prepared while the engines run."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.images.frames import FrameSource
from dyninfer.routing.policy import Blind
from tests import support
from tests.dyninfer.runtime.test_detector_goals import opened  # noqa: F401  # a fixture


class Made(FrameSource):
    """Frames that tests make: of one number each, with an error or a wait after the last."""

    def __init__(self, count: int, then: object = None, *, live: bool = False) -> None:
        super().__init__("made", count)
        self.count, self.then, self.live = count, then, live
        self.taken, self.closed = 0, False
        self.asked = threading.Semaphore(0)
        self._gone = threading.Event()

    def __next__(self) -> dyninfer.Frame:
        self.asked.release()
        if self.taken == self.count:
            if isinstance(self.then, Exception):
                raise self.then
            if self.then == "wait":
                self._gone.wait(60)
            raise StopIteration
        self.taken += 1
        image = np.full((9, 12, 3), [0, self.taken * 91 % 256, self.taken * 37 % 256], np.uint8)
        return dyninfer.Frame(image, self.taken - 1, self.taken / 10, self.name)

    def close(self) -> None:
        self.closed = True
        self._gone.set()


def threads() -> int:
    return sum(thread.name == "dyninfer frames" for thread in threading.enumerate())


@pytest.fixture(params=["two_exits", "three_exits", "static", "select_detectors"])
def any_route(request, tmp_path: Path):
    path = getattr(support, f"write_{request.param}")(tmp_path / "any.dyn")
    with dyninfer.load(path) as detector:
        yield detector


def test_frames_come_in_order_with_what_a_call_finds(any_route) -> None:
    streamed = list(any_route.stream(Made(20)))
    assert [frame.index for frame, _ in streamed] == list(range(20))
    assert [frame.time_s for frame, _ in streamed] == [(n + 1) / 10 for n in range(20)]
    for frame, found in streamed:
        called = any_route(frame.image)
        np.testing.assert_array_equal(found.boxes_xyxy, called.boxes_xyxy)
        np.testing.assert_array_equal(found.confidences, called.confidences)
        assert (found.easiness, found.exit_index) == (called.easiness, called.exit_index)
        assert {"decode", *called.timings_ms} == set(found.timings_ms)
    assert len({found.exit_index for _, found in streamed}) == len(any_route.manifest.ways)


def test_options_and_policy_are_those_of_a_call(two_exits) -> None:
    first, second = dyninfer.AlwaysEasy(), dyninfer.AlwaysHard()
    for policy, way in ((first, 0), (second, 1)):
        assert {d.exit_index for _, d in two_exits.stream(Made(3), policy=policy)} == {way}
    nothing = dyninfer.Postprocess(confidence=1.0)
    assert [len(d) for _, d in two_exits.stream(Made(3), options=nothing)] == [0, 0, 0]
    assert list(two_exits.stream(Made(0))) == []


def test_ways_are_forced_for_frames_one_at_a_time(two_exits) -> None:
    for way in (0, 1):
        policy = dyninfer.Forced([way])
        assert {d.exit_index for _, d in two_exits.stream(Made(3), policy=policy)} == {way}
    with support.refuses(dyninfer.PolicyError, "forced for 2 images and the call has 1"):
        list(two_exits.stream(Made(3), policy=dyninfer.Forced([0, 1])))


def test_pictures_are_a_source_too(two_exits, tmp_path: Path) -> None:
    for place, name in enumerate(("a.png", "b.png")):
        cv2.imwrite(str(tmp_path / name), np.full((4, 5, 3), place, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = list(two_exits.stream(tmp_path, on_error="skip"))
    assert [Path(frame.source).name for frame, _ in found] == ["a.png", "b.png"]
    with support.refuses(dyninfer.InputError, "broken.jpg is not a picture"):
        list(two_exits.stream(str(tmp_path)))
    assert not threads()


def test_the_next_frames_are_prepared_while_the_engines_run(two_exits) -> None:
    source = Made(6)
    waited = []

    class UntilTheNextAreAsked(Blind):
        def decide(self, signal, point):
            # 1, 2 and 3 are taken before the first comes here; the fourth has to wait for a place
            if not waited:
                waited.append(all(source.asked.acquire(timeout=20) for _ in range(3)))
            return dyninfer.AlwaysEasy().decide(signal, point)

    stream = two_exits.stream(source, policy=UntilTheNextAreAsked())
    next(stream)
    assert waited == [True]
    stream.close()


def test_frames_run_side_by_side_where_none_has_to_do_with_another(two_exits, monkeypatch) -> None:
    for module in ("session", "detector"):
        monkeypatch.setattr(f"dyninfer.runtime.{module}.usable_cores", lambda: 2)
    both, engine, lone = threading.Barrier(2), two_exits.engines["first"], []
    run, numbers = engine.run, itertools.count()

    def run_when_another_runs(inputs, workspace):
        lone.append(workspace.lone)
        if next(numbers) < 2:
            both.wait(20)
        return run(inputs, workspace)

    monkeypatch.setattr(engine, "run", run_when_another_runs)
    assert [frame.index for frame, _ in two_exits.stream(Made(6))] == list(range(6))
    assert lone == [True] * 6
    assert engine.lone_session is not None


@pytest.mark.parametrize(
    ("options", "side_by_side"),
    [
        ({}, True),
        ({"policy": dyninfer.AlwaysHard()}, True),
        ({"deadline_ms": 1e6}, False),
        ({"policy": dyninfer.LatencyBudget(13)}, False),
        ({"policy": dyninfer.PreviousFrame(dyninfer.Threshold(0.5))}, False),
    ],
    ids=["plain", "hard", "deadline", "milliseconds", "previous"],
)
def test_frames_that_are_to_be_quick_by_themselves_get_all_cores(
    opened,  # noqa: F811
    monkeypatch,
    options,
    side_by_side,
) -> None:
    monkeypatch.setattr("dyninfer.runtime.session.usable_cores", lambda: 2)
    monkeypatch.setattr("dyninfer.runtime.detector.usable_cores", lambda: 2)
    engine, lone = opened.engines[opened.manifest.route.exits[0].body], []
    run = engine.run

    def watched(inputs, workspace):
        lone.append(workspace.lone)
        return run(inputs, workspace)

    monkeypatch.setattr(engine, "run", watched)
    assert len(list(opened.stream(Made(4), **options))) == 4
    assert lone == [side_by_side] * 4


class Remembers:
    """A policy that may depend on what came before, for all that anyone knows."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def decide(self, easiness, point):
        self.seen += easiness.tolist()
        return dyninfer.Threshold(0.5).decide(easiness, point)


@pytest.mark.parametrize("make", [Remembers, lambda: dyninfer.PreviousFrame(dyninfer.Threshold(2))])
def test_a_policy_that_may_remember_gets_the_frames_in_order(two_exits, make) -> None:
    in_loop, in_stream = make(), make()
    called = [two_exits(frame.image, policy=in_loop) for frame in Made(20)]
    streamed = [found for _, found in two_exits.stream(Made(20), policy=in_stream)]
    assert [found.easiness for found in streamed] == [found.easiness for found in called]
    assert [found.exit_index for found in streamed] == [found.exit_index for found in called]
    if isinstance(in_loop, Remembers):
        assert in_stream.seen == in_loop.seen
    assert two_exits.engines["first"].run_count == 40


def test_a_bundle_that_is_gone_is_streamed_one_frame_after_the_other(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("dyninfer.runtime.session.usable_cores", lambda: 2)
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path) as detector:
        next((path / "onnx").glob("*first*")).unlink()
        assert len(list(detector.stream(Made(5)))) == 5
        assert len(list(detector.stream(Made(5)))) == 5
    assert caplog.text.count("its frames run one after the other") == 1


def test_no_more_than_two_frames_are_ahead(two_exits) -> None:
    source = Made(50)
    for streamed in two_exits.stream(source):
        time.sleep(0.005)
        assert source.taken <= streamed.frame.index + 1 + 3  # its own slot is free again
    live = Made(50, live=True)
    for streamed in two_exits.stream(live):
        time.sleep(0.005)
        assert live.taken <= streamed.frame.index + 1 + 2


def test_an_error_of_the_source_comes_after_the_frames_before_it(two_exits) -> None:
    source, seen = Made(5, dyninfer.InputError("the film tore")), []
    with support.refuses(dyninfer.InputError, "the film tore"):
        for streamed in two_exits.stream(source):
            seen.append(streamed.frame.index)
    assert seen == list(range(5))
    assert source.closed
    assert not threads()


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_leaving_the_loop_ends_the_thread_and_closes_the_source(two_exits, after, live) -> None:
    source = Made(1000, live=live)
    stream = two_exits.stream(source)
    for _ in range(after):
        next(stream)
    stream.close()
    assert not threads()
    assert source.closed == (after > 0)
    assert source.taken <= after + 3


def test_an_exception_in_the_loop_ends_it_when_the_generator_goes(two_exits) -> None:
    source = Made(1000)

    def consume() -> None:
        for streamed in two_exits.stream(source):
            if streamed.frame.index == 3:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        consume()
    gc.collect()
    assert source.closed
    assert not threads()


def test_a_failing_engine_ends_it(two_exits, monkeypatch) -> None:
    source = Made(1000)

    def fail(*_):
        raise dyninfer.EngineRunError("out of memory")

    stream = two_exits.stream(source)
    next(stream)
    monkeypatch.setattr(two_exits.engines["first"], "run", fail)
    with support.refuses(dyninfer.EngineRunError, "out of memory"):
        list(stream)  # frames that were ahead are there already
    assert source.closed
    assert not threads()


def test_control_c_while_it_waits_for_a_frame(two_exits) -> None:
    source = Made(2, "wait", live=True)
    stream = two_exits.stream(source)
    next(stream), next(stream)
    main = threading.main_thread().ident  # or another thread may take it, and wake nobody
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert time.monotonic() - start < 20
    assert source.closed
    assert not threads()


def test_control_c_that_another_thread_gets_while_it_waits_for_a_frame(two_exits) -> None:
    source = Made(2, "wait", live=True)
    stream = two_exits.stream(source)
    next(stream), next(stream)
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert time.monotonic() - start < 20
    assert source.closed
    assert not threads()


def test_a_closed_detector_is_said_to_be_closed(tmp_path: Path) -> None:
    detector = dyninfer.load(support.write_two_exits(tmp_path / "two.dyn"))
    source = Made(10)
    stream = detector.stream(source)
    next(stream)
    detector.close()
    with support.refuses(dyninfer.InputError, "closed"):
        list(stream)
    assert source.closed


def test_a_forked_child_may_not_go_on_with_it(two_exits) -> None:
    stream = two_exits.stream(Made(10))
    next(stream)
    child = os.fork()
    if not child:
        try:
            next(stream)
        except dyninfer.InputError as error:
            os._exit(7 if "belongs to the process that was forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(list(stream)) == 9
    assert not threads()


def test_what_is_no_source_is_refused(two_exits) -> None:
    with support.refuses(dyninfer.InputError, "source is None", "dyninfer.open_source"):
        two_exits.stream(None)
    with support.refuses(dyninfer.InputError, "camera:99 cannot be opened"):
        next(two_exits.stream(99))
    with support.refuses(dyninfer.InputError, "no.mp4 does not exist"):
        next(two_exits.stream("no.mp4"))


def test_two_streams_at_once(two_exits) -> None:
    pairs = zip(two_exits.stream(Made(30)), two_exits.stream(Made(30)), strict=True)
    for one, other in pairs:
        assert one.frame.index == other.frame.index
        assert one.detections.easiness == other.detections.easiness
    assert not threads()


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def growth_over_ten_thousand_frames_mib(bundle: Path, clip: Path) -> float:
    start = 0.0
    with dyninfer.load(bundle) as detector:
        for frame, _ in detector.stream(clip):
            if frame.index == 2_000:
                start = resident_mib()
        assert frame.index == 9_999
        assert not threads()
        return resident_mib() - start


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory in use is read there")
def test_memory_is_flat_over_ten_thousand_frames(tmp_path: Path) -> None:
    clips = pytest.importorskip("tests.dyninfer.images.clips")
    short = clips.write_clip(tmp_path / "short.h264", 500, size=(64, 64)).read_bytes()
    path = tmp_path / "long.h264"
    path.write_bytes(short * 20)
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    growth = support.in_fresh_process(growth_over_ten_thousand_frames_mib, bundle, path)
    assert growth < 8
