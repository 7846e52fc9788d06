"""Streams of a real RTSP server that dies, stalls, changes its picture and sends broken packets."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dyninfer
from dyninfer.images import live
from dyninfer.images.sources import open_source
from tests import support
from tests.dyninfer.images.clips import write_clip

pytest.importorskip("av", reason="PyAV is not installed; make installs it")
pytestmark = pytest.mark.slow  # together, since streams take their time

SCRIPT = Path(__file__).with_name("rtsp_server.py")
NEEDED = (
    "import gi; gi.require_version('GstRtspServer', '1.0');"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    "assert all(map(Gst.ElementFactory.find, ['x264enc', 'rtph264pay', 'breakmydata']))"
)


@pytest.fixture(scope="module")
def python() -> str:
    """A Python that GStreamer's RTSP server runs in."""
    for python in (sys.executable, "/usr/bin/python3"):
        if Path(python).exists():
            found = subprocess.run([python, "-c", NEEDED], capture_output=True, check=False)
            if not found.returncode:
                return python
    pytest.skip(
        "GStreamer's RTSP server is not installed: apt-get install python3-gi "
        "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
        "gstreamer1.0-plugins-ugly"
    )


class Server:
    """The server as a process, always on the same port."""

    def __init__(self, python: str) -> None:
        self._python, self._port = python, 0
        self._process: subprocess.Popen[str] | None = None

    def start(self, kind: str = "steady") -> None:
        command = [self._python, str(SCRIPT), str(self._port), kind]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/live"


@pytest.fixture
def server(python: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.1)
    opened = Server(python)
    yield opened
    opened.kill()


def wait_for_threads(before: int) -> None:
    end = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() == before


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_frames_come_with_their_times_and_the_slow_miss_some(server, transport: str) -> None:
    server.start()
    before = threading.active_count()
    with open_source(server.address, transport=transport) as source:
        assert source.live
        quick = [next(source) for _ in range(5)]
        time.sleep(0.5)
        late = [next(source), next(source)]
    frames = [*quick, *late]
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 7
    dropped = [frame.dropped for frame in frames]
    assert 5 < max(dropped) == max(late[0].dropped, late[1].dropped)
    for one, other in itertools.pairwise(frames):
        assert other.index == one.index + 1 + other.dropped
        assert other.time_s - one.time_s == pytest.approx((1 + other.dropped) / 25, abs=0.02)
    assert source.dropped == sum(dropped)
    wait_for_threads(before)


def test_a_server_that_is_killed_and_started_again(server, two_exits) -> None:
    server.start()
    before = threading.active_count()
    source = open_source(server.address, timeout_s=2)
    seen: list[dyninfer.Frame] = []
    for frame, found in two_exits.stream(source):
        assert len(found) == 1
        seen.append(frame)
        if len(seen) == 5:
            server.kill()
            server.start("larger")
        if len(seen) > 5 and frame.image.shape == (80, 96, 3):
            break
    assert source.reconnects == 1
    assert seen[0].image.shape == (48, 64, 3)
    assert [f.index for f in seen] == sorted({f.index for f in seen})
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(seen))
    wait_for_threads(before)


def test_a_camera_that_dies_beside_a_file_leaves_it_alone(server, two_exits, tmp_path) -> None:
    """Under one budget: both are answered, the file at the pace of its times, until each ends."""
    server.start()
    before = threading.active_count()
    sources = {
        "door": open_source(server.address, timeout_s=1, give_up_s=0.5),
        "yard": write_clip(tmp_path / "yard.mp4", 30),
    }
    answered: dict[str, list[dyninfer.Frame]] = {name: [] for name in sources}
    start = time.monotonic()
    with dyninfer.run_streams(sources, two_exits, budget="500ms/s") as streams:
        for result in streams:
            answered[result.stream].append(result.frame)
            if len(answered["door"]) == 5:
                server.kill()
    assert len(answered["door"]) >= 5
    assert len(answered["yard"]) + streams.skipped["yard"] == 30
    assert len(answered["yard"]) > 5
    assert time.monotonic() - start >= 2.9
    assert "connecting again did not help" in str(streams.ended["door"])
    assert streams.ended["yard"] is None
    wait_for_threads(before)


def test_a_server_that_stalls_is_left_and_found_again(server) -> None:
    server.start()
    with open_source(server.address, timeout_s=1) as source:
        next(source)
        server.signal(signal.SIGSTOP)
        threading.Timer(2.5, server.signal, [signal.SIGCONT]).start()
        start = time.monotonic()
        while not source.reconnects:
            next(source)
            assert time.monotonic() - start < 30
        assert next(source).image.shape == (48, 64, 3)


def test_a_server_that_does_not_come_back_ends_the_stream(server, two_exits) -> None:
    server.start()
    stream = two_exits.stream(open_source(server.address, timeout_s=1, give_up_s=0.5))
    next(stream)
    server.kill()
    with support.refuses(dyninfer.InputError, "gave no frame for 0.5 s", "connecting again"):
        list(stream)
    with support.refuses(dyninfer.InputError, "cannot be opened"):
        open_source(server.address)


def test_the_picture_may_change_its_size_at_any_time(server) -> None:
    server.start("changing")
    with open_source(server.address) as source:
        shapes, start = [next(source).image.shape], time.monotonic()
        while len(set(shapes)) < 2 and time.monotonic() - start < 20:
            shapes.append(next(source).image.shape)
    assert set(shapes) == {(48, 64, 3), (80, 96, 3)}
    assert source.reconnects == 0


def test_packets_that_are_broken_do_no_harm(server) -> None:
    server.start("corrupt")
    with open_source(server.address, timeout_s=2) as source:
        frames, start = [next(source) for _ in range(20)], time.monotonic()
        while not source.damaged and time.monotonic() - start < 20:
            frames.append(next(source))
    assert source.damaged
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}


def test_nothing_is_kept_of_ten_thousand_frames(server, two_exits) -> None:
    server.start("fast")
    before, start = threading.active_count(), 0
    files = len(list(Path("/proc/self/fd").iterdir()))
    for frame, _ in two_exits.stream(server.address):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        start = start or (pages if frame.index > 1000 else 0)
        if frame.index >= 10_000:
            break
    assert (pages - start) * os.sysconf("SC_PAGESIZE") < 8 << 20
    wait_for_threads(before)
    assert len(list(Path("/proc/self/fd").iterdir())) == files
