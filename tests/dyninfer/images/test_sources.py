"""Frames of pictures, of clips that are whole, turned, damaged or change, and of connections."""

from __future__ import annotations

import contextlib
import functools
import gc
import http.server
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.images import live
from dyninfer.images.sources import open_source, without_password
from tests import support
from tests.dyninfer.images import clips
from tests.dyninfer.images.clips import number_of, write_clip


def read_all(source: object, **options: object) -> list[dyninfer.Frame]:
    with open_source(source, **options) as frames:
        return list(frames)


def by_opencv(path: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


def write_pictures(folder: Path, *names: str) -> None:
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        assert cv2.imwrite(str(folder / name), np.full((4, 5, 3), place, np.uint8))


def test_pictures_come_in_order_by_folder_pattern_and_list(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", "b.png", "deep/c.png")
    names = ["a.png", "b.png", "deep/c.png"]
    assert [f.source for f in read_all(tmp_path)] == [str(tmp_path / name) for name in names]
    assert [f.image[0, 0, 0] for f in read_all(f"{tmp_path}/*.png")] == [0, 1]
    (tmp_path / "some.txt").write_text("# the second first\nb.png\n\n deep \nb.png\n")
    listed = read_all(tmp_path / "some.txt")
    assert [(f.index, f.time_s, f.image[0, 0, 0]) for f in listed] == [(0, None, 1), (1, None, 2)]


def test_a_picture_that_cannot_be_read_ends_or_is_passed_over(tmp_path: Path, caplog) -> None:
    write_pictures(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with support.refuses(dyninfer.InputError, "b.png is not a picture"):
        read_all(tmp_path)
    assert [frame.index for frame in read_all(tmp_path, on_error="skip")] == [0, 2]
    assert "b.png is not a picture but text; skipped" in caplog.text


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_every_frame_comes_once_in_order_with_its_time(tmp_path: Path, codec: str) -> None:
    times = [0.0, 0.1, 0.25, 0.3, 1.5, 1.6]
    frames = read_all(write_clip(tmp_path / "a.mp4", times=times, codec=codec))
    assert [number_of(frame.image) for frame in frames] == list(range(6))
    assert [frame.index for frame in frames] == list(range(6))
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=2e-3)


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mov", ".ts", ".webm"])
def test_other_containers(tmp_path: Path, suffix: str) -> None:
    codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(suffix, "libx264")
    frames = read_all(write_clip(tmp_path / f"a{suffix}", codec=codec))
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    steps = np.diff([frame.time_s for frame in frames])
    np.testing.assert_allclose(steps, 0.1, atol=2e-3)


@pytest.mark.parametrize("name", ["car-detection.mp4", "bottle-detection.mp4"])
def test_real_clips_are_what_opencv_reads(name: str) -> None:
    path = support.shared_folder() / "data/videos" / name
    if not path.exists():
        pytest.skip("the clips are not there; see CONTRIBUTING.md")
    capture, last = cv2.VideoCapture(str(path)), -1.0
    with open_source(path) as frames:
        assert frames.expected == capture.get(cv2.CAP_PROP_FRAME_COUNT)
        for frame in frames:
            assert last < frame.time_s
            last = frame.time_s
            if frame.index in (0, 100, 370):
                capture.set(cv2.CAP_PROP_POS_FRAMES, frame.index)
                np.testing.assert_array_equal(frame.image, capture.read()[1])
    assert frame.index + 1 == frames.expected
    assert frames.damaged == 0


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_clip_is_turned_as_its_container_says(tmp_path: Path, degrees: int) -> None:
    path = clips.turn(write_clip(tmp_path / "a.mp4", 3), degrees)
    frames = read_all(path)
    assert frames[0].image.shape == ((48, 64, 3) if degrees == 180 else (64, 48, 3))
    np.testing.assert_array_equal(frames[1].image, by_opencv(path)[1])
    upright = clips.picture(1, 48, 64)
    corner = np.rot90(upright, -degrees // 90)  # clockwise
    assert np.abs(corner.astype(int) - frames[1].image).mean() < 6


def test_damaged_packets_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = clips.damage(write_clip(tmp_path / "a.mp4", 40, codec="mjpeg"), [3, 4, 20])
    with open_source(path) as source:
        numbers = [number_of(frame.image) for frame in source]
    assert source.damaged == 3
    assert numbers == [number % 24 for number in range(40) if number not in (3, 4, 20)]


def test_a_clip_that_is_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.mkv", 40).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) * 4 // 5])
    frames = read_all(path)
    assert 5 < len(frames) < 40
    assert [number_of(frame.image) for frame in frames] == [n % 24 for n in range(len(frames))]


def test_the_size_may_change_in_the_middle(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "small.h264", 5, size=(48, 64)).read_bytes()
    large = write_clip(tmp_path / "large.h264", 5, size=(96, 80)).read_bytes()
    (tmp_path / "both.h264").write_bytes(small + large)
    frames = read_all(tmp_path / "both.h264")
    assert [frame.image.shape[:2] for frame in frames] == [(48, 64)] * 5 + [(96, 80)] * 5
    assert [number_of(frame.image) for frame in frames] == [*range(5), *range(5)]
    limited = open_source(tmp_path / "both.h264", max_pixels=64 * 48)
    assert {frame.image.shape[:2] for frame in limited} == {(48, 64)}  # others are not decoded
    assert limited.damaged


def test_files_that_are_no_video_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.mp4").read_bytes()
    playlist = f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/a.mp4\n"
    contents = {
        "empty.mp4": (b"", "is empty (0 bytes)"),
        "text.mp4": (b"no video at all\n" * 100, "is not a video that can be read"),
        "noise.avi": (np.random.default_rng(0).bytes(100_000), "is not a video that can be read"),
        "half.mp4": (whole[: len(whole) // 2], "is not a video that can be read"),
        "list.ts": (playlist.encode(), "is not a video that can be read"),
        "script.mkv": (f"ffconcat version 1.0\nfile {tmp_path}/a.mp4\n".encode(), "is not a video"),
    }
    for name, (data, message) in contents.items():
        (tmp_path / name).write_bytes(data)
        with support.refuses(dyninfer.InputError, name, message):
            read_all(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.mp4")
    with support.refuses(dyninfer.InputError, "pipe.mp4", "a pipe or a device"):
        read_all(tmp_path / "pipe.mp4")
    with support.refuses(dyninfer.InputError, "missing.mp4 does not exist"):
        open_source(tmp_path / "missing.mp4")
    with support.refuses(dyninfer.InputError, "64 x 48 pixels, expected at most 3000"):
        open_source(tmp_path / "a.mp4", max_pixels=3000)


def test_a_clip_of_sound_alone_is_refused(tmp_path: Path) -> None:
    with clips.av.open(str(tmp_path / "a.mp4"), "w") as container:
        clips._write_sound(container, container.add_stream("aac", rate=16000), 1.0)
    with support.refuses(dyninfer.InputError, "holds no video that can be decoded, but audio"):
        open_source(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("0", ("the first camera is camera:0",)),
        ("camera:front", ("neither a file nor a camera",)),
        ("file:///a.mp4", ("pass the path alone",)),
        ("concat:a.mp4|b.mp4", ("does not exist",)),
        ("s3://bucket/a.mp4", ("an address that is not read", "rtsp")),
        (["a.txt"], ("line 2: nowhere.png does not exist",)),
    ],
)
def test_names_that_stand_for_nothing(tmp_path: Path, monkeypatch, source, parts) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(source, list):
        (source,) = source
        write_pictures(tmp_path, "a.png")
        Path(source).write_text("a.png\nnowhere.png\n")
    with support.refuses(dyninfer.InputError, *parts):
        open_source(source)


@pytest.mark.parametrize(
    "options",
    [
        {"transport": "carrier pigeon"},
        {"timeout_s": 0},
        {"timeout_s": "long"},
        {"give_up_s": float("nan")},
        {"on_error": "ignore"},
        {"max_pixels": 0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_make_no_sense(options) -> None:
    with support.refuses(dyninfer.InputError, next(iter(options)), "expected"):
        open_source("rtsp://127.0.0.1:1/none", **options)


def test_without_pyav_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"\0" * 100)
    with support.refuses(dyninfer.MissingExtra, "needs PyAV", "[video]"):
        open_source(tmp_path / "a.mp4")
    write_pictures(tmp_path, "a.png")
    assert len(read_all(tmp_path / "a.png")) == 1


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a folder, over HTTP."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_clip_over_http_is_read_whole(tmp_path: Path, served: str) -> None:
    write_clip(tmp_path / "served/a.mp4")
    with open_source(f"{served}/a.mp4") as source:
        assert not source.live
        assert [number_of(frame.image) for frame in source] == list(range(12))
    with support.refuses(dyninfer.InputError, "none.mp4 cannot be opened", "404"):
        open_source(f"{served}/none.mp4")


def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", clips.picture(number, 48, 64))[1].tobytes()


class Pictures(threading.Thread):
    """A camera of the network: JPEG pictures without end over HTTP, as many as it is told to."""

    def __init__(self, bursts: list[int], pause_s: float = 0.01, hold_s: float = 0) -> None:
        super().__init__(daemon=True)
        self._bursts, self._pause_s, self._hold_s = bursts, pause_s, hold_s
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://me:secret@127.0.0.1:{self._socket.getsockname()[1]}/camera"
        self.sent = 0
        self.start()

    def run(self) -> None:
        with contextlib.suppress(ConnectionError):  # who has seen enough leaves
            self._serve()

    def _serve(self) -> None:
        for burst in self._bursts:
            connection, _ = self._socket.accept()
            with connection:
                connection.recv(65536)
                head = (
                    "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=x\r\n\r\n"
                )
                connection.sendall(head.encode())
                for _ in range(burst):
                    data = jpeg(self.sent)
                    part = f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    connection.sendall(part.encode() + data + b"\r\n")
                    self.sent += 1
                    time.sleep(self._pause_s)
                time.sleep(self._hold_s)
        self._socket.close()


def test_whoever_is_slow_gets_the_newest_frame_of_a_camera(caplog) -> None:
    camera = Pictures([60])
    with open_source(camera.address, give_up_s=0) as source:
        assert source.live
        first = next(source)
        while camera.sent < 60:
            time.sleep(0.01)
        time.sleep(0.1)
        newest = next(source)
        assert newest.index > first.index + 10
        assert newest.dropped == newest.index - first.index - 1
        assert newest.time_s > first.time_s
        assert number_of(newest.image) == newest.index % 24
        assert source.dropped == newest.dropped + first.dropped
        assert "secret" not in newest.source
        with support.refuses(dyninfer.InputError, "gave no frame for 0 s"):
            next(source)
    assert "the connection is lost" in caplog.text
    assert "secret" not in caplog.text


def test_a_lost_connection_is_made_again(monkeypatch) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.05)
    camera = Pictures([20, 20, 20], pause_s=0.03)
    with open_source(camera.address, give_up_s=2) as source:
        frames = [next(source)]
        while camera.sent < 59:  # the very last one may be here before it is counted there
            frames.append(next(source))
    assert source.reconnects == 2
    assert [f.index for f in frames] == sorted({f.index for f in frames})
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(frames))


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        start = time.monotonic()
        for address in (f"http://127.0.0.1:{port}/a.mp4", f"rtsp://127.0.0.1:{port}/a"):
            with support.refuses(dyninfer.InputError, "did not answer within 0.3 s"):
                open_source(address, timeout_s=0.3)
        assert time.monotonic() - start < 30


def test_closing_a_live_source_ends_its_thread() -> None:
    camera = Pictures([20], hold_s=60)
    before = threading.active_count()
    source = open_source(camera.address, timeout_s=0.7)
    next(source)
    source.close()
    assert list(source) == []
    end = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() == before


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://a:b:c@host/x@y") == "rtsp://a:***@host/x@y"
    assert without_password("rtsp://host:554/a:b") == "rtsp://host:554/a:b"


def test_a_child_process_may_not_use_its_parents_source(tmp_path: Path) -> None:
    source = open_source(write_clip(tmp_path / "a.mp4"))
    next(source)
    child = os.fork()
    if not child:
        try:
            next(source)
        except dyninfer.InputError as error:
            source.close()
            os._exit(7 if "opened before this process was forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(list(source)) == 11


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_collects_none_of_its_parents_decoders(tmp_path) -> None:
    """A scaler's threads are the parent's: a child that freed it would wait for them for ever."""
    source = open_source(write_clip(tmp_path / "a.mp4"))
    next(source)
    circle = [source]
    circle.append(circle)
    gc.disable()
    try:
        del source, circle
        child = os.fork()
        if not child:
            signal.alarm(10)
            gc.collect()
            os._exit(7)
    finally:
        gc.enable()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
