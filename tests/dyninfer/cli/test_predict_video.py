"""``dyninfer predict`` on videos: a copy with its sound and times, and a line for each frame."""

from __future__ import annotations

import _thread
import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dyninfer.images.drawing import class_colour
from dyninfer.images.video_writing import VideoWriter
from tests import support
from tests.dyninfer.cli.run import run, write_picture
from tests.dyninfer.images import clips
from tests.dyninfer.images.clips import av, write_clip


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(support.write_two_exits(tmp_path / "two.dyn"))


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(audio=0) if p.pts is not None]
        return [(round(float(p.pts * p.time_base), 3), bytes(p)) for p in packets]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_clip_keeps_its_times_and_its_sound(capsys, bundle, tmp_path: Path, suffix) -> None:
    times = [0.0, 0.1, 0.2, 0.5, 0.6, 1.4, 1.5]
    clip = write_clip(tmp_path / "a.mp4", times=times, seconds_of_sound=2.5)
    out = tmp_path / f"out{suffix}"
    status, text, err = run(capsys, "predict", bundle, str(clip), "-o", str(out), "-t", "2")
    assert (status, err) == (0, "")
    assert "exit 1       7  100.0%" in text
    assert "7 frames; results in" in text
    shown = np.array(times_of(out))
    np.testing.assert_allclose(shown - shown[0], times, atol=2e-3)
    before, after = sound_of(clip), sound_of(out)
    assert [data for _, data in before] == [data for _, data in after]
    # Matroska has no times below 0, where AAC begins, and moves everything
    in_step = [seconds - shown[0] for seconds, _ in after]
    np.testing.assert_allclose(in_step, [seconds for seconds, _ in before], atol=2e-3)
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line["frame"] for line in lines] == list(range(7))
    np.testing.assert_allclose([line["time_s"] for line in lines], times, atol=2e-3)
    assert {(line["width"], line["height"], line["exit_index"]) for line in lines} == {(64, 48, 1)}
    assert len(lines[0]["detections"]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"two.dyn", "a.mp4", out.name, "out.jsonl"}


def test_the_copy_is_annotated_and_upright(capsys, bundle, tmp_path: Path) -> None:
    clip = clips.turn(write_clip(tmp_path / "a.mp4", 3, size=(192, 256)), 90)
    run(capsys, "predict", bundle, str(clip), "-o", str(tmp_path / "out.mp4"))
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(256, 192, 3)] * 3
    badge = frames[1][-12:, :40]  # in colour, where the clip is grey
    assert (badge.max(-1).astype(int) - badge.min(-1)).max() > 60


def test_without_a_name_a_folder_is_made(capsys, bundle, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "street.mp4", 4, size=(47, 63), codec="mjpeg")
    assert run(capsys, "predict", bundle, "street.mp4")[0] == 0
    assert len(times_of(tmp_path / "predictions/annotated/street.mp4")) == 4
    assert len(lines_of(tmp_path / "predictions/predictions.jsonl")) == 4
    assert run(capsys, "predict", bundle, "street.mp4", "--no-images")[0] == 0
    assert [p.name for p in (tmp_path / "predictions-2").iterdir()] == ["predictions.jsonl"]
    again = ["predict", bundle, "street.mp4", "-o", "predictions"]
    status, _, err = run(capsys, *again)
    assert (status, "earlier run" in err) == (1, True)
    write_picture(tmp_path / "a.png", 40, 40)
    assert run(capsys, "predict", bundle, "a.png", "-o", "predictions", "--overwrite")[0] == 0
    assert [p.name for p in (tmp_path / "predictions/annotated").iterdir()] == ["a.jpg"]
    assert run(capsys, *again, "--overwrite")[0] == 0
    assert [p.name for p in (tmp_path / "predictions/annotated").iterdir()] == ["street.mp4"]
    status, out, _ = run(capsys, "predict", bundle, "street.mp4", "--json", "--no-images")
    assert [json.loads(line)["frame"] for line in out.splitlines()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "b.png", "-o", "out.mp4"], "more than one source; expected a folder"),
        (["a.mp4", "a.mp4", "camera:0"], "camera:0 is a camera, which may have no end"),
        (["b.png", "http://127.0.0.1:1/a"], "http://127.0.0.1:1/a is a stream, which may have"),
        (["b.png", "--track"], "--track and --every follow the frames of a video"),
        (["b.png", "--every", "3"], "--track and --every follow the frames of a video"),
        (["none*.mp4"], "none*.mp4 does not exist"),
        (["b.png", "-o", "out.mp4"], "out.mp4 is the name of a video, expected a folder"),
        (["a.mp4", "-o", "out.avi"], "videos are written to .mp4, .m4v, .mov, .mkv"),
        (["a.mp4", "-o", "a.mp4", "--overwrite"], "a.mp4 is read"),
        (["a.mp4", "-o", "old.mp4"], "old.mp4 exists"),
        (["a.mp4", "-o", "none/out.mp4"], "there is no folder none"),
        (["a.mp4", "-o", "two.dyn"], "two.dyn is a bundle"),
        (["text.mp4", "-o", "out.mp4"], "text.mp4 is not a video that can be read"),
        (["text.mp4"], "text.mp4 is not a video that can be read"),
        (["rtsp://127.0.0.1:1/a", "--transport", "pigeon"], "transport is 'pigeon'"),
        (["rtsp://127.0.0.1:1/a", "--timeout", "1"], "cannot be opened"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_in_one_line_and_leaves_nothing(
    capsys, bundle, tmp_path: Path, monkeypatch, arguments, message
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", 2)
    write_picture(tmp_path / "b.png", 40, 40)
    (tmp_path / "old.mp4").write_text("old")
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    before = support.files_below(tmp_path)
    status, _, err = run(capsys, "predict", bundle, *arguments)
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
    assert support.files_below(tmp_path) == before


def test_sound_that_does_not_fit_is_left_out_and_said(capsys, bundle, tmp_path: Path) -> None:
    clip = tmp_path / "a.wmv"
    with av.open(str(clip), "w") as container:
        video = container.add_stream("wmv2", rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream("wmav2", rate=16000)
        sound.bit_rate = 32_000
        container.mux(video.encode(av.VideoFrame.from_ndarray(clips.picture(0, 48, 64), "bgr24")))
        container.mux(video.encode())
        clips._write_sound(container, sound, 1.0)
    out = tmp_path / "out.mp4"
    status, _, err = run(capsys, "predict", bundle, str(clip), "-o", str(out))
    assert status == 0, err
    assert "the sound, wmav2, is left out: .mp4 does not hold it" in err
    assert len(times_of(out)) == 1


def test_damage_is_counted_in_the_summary(capsys, bundle, tmp_path: Path) -> None:
    clip = clips.damage(write_clip(tmp_path / "a.mp4", 10, codec="mjpeg"), [4])
    status, out, _ = run(capsys, "predict", bundle, str(clip), "-o", str(tmp_path / "out.mp4"))
    assert status == 0
    assert "1 frame damaged and skipped" in out
    assert len(times_of(tmp_path / "out.mp4")) == 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_playable_file(bundle, tmp_path: Path, number) -> None:
    short = write_clip(tmp_path / "short.h264", 500, size=(240, 320)).read_bytes()
    clip = tmp_path / "long.h264"
    clip.write_bytes(short * 40)
    out = tmp_path / "out.mp4"
    command = [sys.executable, "-m", "dyninfer", "predict", bundle, str(clip), "-o", str(out)]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(30):
        assert process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.decode().splitlines() == ["interrupted" if number == signal.SIGINT else "terminated"]
    lines = lines_of(tmp_path / "out.jsonl")
    assert 30 <= len(lines) < 20_000
    assert abs(len(times_of(out)) - len(lines)) <= 1  # it may come between the two
    assert not list(tmp_path.glob(".*"))


def test_an_interrupt_while_a_frame_is_encoded_loses_none(tmp_path: Path) -> None:
    """It comes when the encoder has given packets, which are not in the file yet."""
    writer = VideoWriter(tmp_path / "a.mp4", None, None, pytest.fail)
    for number in range(40):
        writer.write(clips.picture(number, 48, 64), number / 10)
    stream = writer._stream

    class Interrupted:
        width, height = stream.width, stream.height

        def encode(self, *frame: object) -> list:
            packets = stream.encode(*frame)
            _thread.interrupt_main()
            return packets

    writer._stream = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        writer.write(clips.picture(40, 48, 64), 4.0)
    writer._stream = stream
    writer.close()
    assert times_of(tmp_path / "a.mp4") == pytest.approx([number / 10 for number in range(41)])


def test_videos_and_pictures_of_folders_and_patterns_all_go_into_one_folder(
    capsys, bundle, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("mixed/deep", "clips", "other"):
        (tmp_path / folder).mkdir(parents=True)
    write_picture(tmp_path / "mixed/photo.png", 40, 40)
    write_picture(tmp_path / "other/a.png", 40, 40)
    for number, name in enumerate(["mixed/street.mp4", "mixed/deep/Street.MOV", "clips/b.mkv"]):
        write_clip(tmp_path / name, 2 + number)
    sources = ["mixed", "clips/*", "other/*.png", "clips/b.mkv"]  # the last one is named twice
    status, out, err = run(capsys, "predict", bundle, *sources)
    assert (status, err) == (0, "")
    lines = lines_of(tmp_path / "predictions/predictions.jsonl")
    assert [line["image"] for line in lines if "image" in line] == [
        "mixed/photo.png",
        "other/a.png",
    ]
    count = Counter(line["source"] for line in lines if "source" in line)
    assert count == {"mixed/street.mp4": 2, "mixed/deep/Street.MOV": 3, "clips/b.mkv": 4}
    copies = {line["source"]: line["annotated"] for line in lines if "source" in line}
    assert len({name.casefold() for name in copies.values()}) == 3
    for source, frames in count.items():
        assert len(times_of(tmp_path / "predictions" / copies[source])) == frames
    assert out.count("frames a second") == 3
    status, _, _ = run(capsys, "predict", bundle, "clips", "-o", "predictions", "--overwrite")
    assert status == 0
    drawn = {path.name for path in (tmp_path / "predictions/annotated").iterdir()}
    assert drawn == {"b.mp4"}  # what the former results name has gone
    (tmp_path / "mixed/text.mp4").write_text("no video\n" * 100)
    status, _, err = run(capsys, "predict", bundle, "mixed", "none.mp4", "-o", "third")
    assert status == 1
    assert "text.mp4 is not a video" in err
    assert "none.mp4 does not exist" in err
    assert "2 of 5 sources could not be read (named above)" in err
    assert len(lines_of(tmp_path / "third/predictions.jsonl")) == 1 + 2 + 3


def test_lines_can_be_read_while_it_runs(bundle, tmp_path: Path) -> None:
    short = write_clip(tmp_path / "short.h264", 100, size=(240, 320)).read_bytes()
    clip = tmp_path / "long.h264"
    clip.write_bytes(short * 100)
    command = [sys.executable, "-m", "dyninfer", "predict", bundle, str(clip), "-o"]
    process = subprocess.Popen([*command, str(tmp_path / "out.mp4")], stdout=subprocess.DEVNULL)
    lines, end = tmp_path / "out.jsonl", time.monotonic() + 60
    while not (lines.exists() and lines.read_bytes().count(b"\n") >= 5):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    assert not (tmp_path / "out.mp4").exists()  # which nobody could play yet
    process.kill()
    process.wait(timeout=60)
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()[:5]] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert lines.read_bytes().endswith(b"\n")


def test_tracks_and_frames_in_between(capsys, bundle, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("trackers", reason="the extra track is not installed")
    white = np.full((48, 64, 3), 255, np.uint8)  # or the box, which follows the grey, would jump
    monkeypatch.setattr(clips, "picture", lambda *_: white)
    clip = write_clip(tmp_path / "a.mp4", 9)
    target = ["-o", str(tmp_path / "out.mp4")]
    status, out, _ = run(capsys, "predict", bundle, str(clip), *target, "--track")
    assert status == 0
    assert "1 object followed" in out
    lines = lines_of(tmp_path / "out.jsonl")
    ids = [line["detections"][0]["track_id"] for line in lines]
    assert ids[0] is None
    assert {*ids[2:]} == {ids[2]} != {None}
    assert not any(line["predicted"] for line in lines)
    arguments = ["predict", bundle, str(clip), *target, "--every", "4", "--overwrite", "-t", "2"]
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert "in between       6   66.7%" in out
    assert "exit 1           3   33.3%" in out
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line["predicted"] for line in lines] == [number % 4 != 0 for number in range(9)]
    assert len(times_of(tmp_path / "out.mp4")) == 9


@pytest.mark.parametrize("every", [1, 3])
def test_the_copy_has_the_colour_of_the_id(
    capsys, bundle, tmp_path: Path, monkeypatch, every
) -> None:
    """Of the class until there is one, and of the id also where no engine ran."""
    pytest.importorskip("trackers", reason="the extra track is not installed")
    white = np.full((640, 480, 3), 255, np.uint8)
    monkeypatch.setattr(clips, "picture", lambda *_: white)
    clip, out = write_clip(tmp_path / "a.mp4", 5, size=(640, 480)), tmp_path / "out.mp4"
    options = ["-o", str(out), "--track", "--every", str(every)]
    assert run(capsys, "predict", bundle, str(clip), *options)[0] == 0
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    for frame, line in zip(frames, lines_of(tmp_path / "out.jsonl"), strict=True):
        found = line["detections"][0]
        number = found["class_id"] if found["track_id"] is None else found["track_id"]
        left, top = (round(corner) for corner in found["box_xyxy"][:2])
        label = np.median(frame[top - 12 : top - 2, left : left + 60], axis=(0, 1))
        far = [np.linalg.norm(label - class_colour(other)) for other in range(8)]
        assert np.argmin(far) == number
    assert number == 0 != found["class_id"]


def test_every_video_begins_anew(capsys, bundle, tmp_path: Path) -> None:
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4", 3)
    names = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    out = str(tmp_path / "out")
    speed = ["--speed", "0.0+previous", "--no-images"]  # all easy, but for the first frame
    assert run(capsys, "predict", bundle, *names, "-o", out, *speed)[0] == 0
    exits = [line["exit_index"] for line in lines_of(tmp_path / "out/predictions.jsonl")]
    assert exits == [1, 0, 0, 1, 0, 0]


def heard_by(server: http.server.ThreadingHTTPServer, capsys, bundle: str, out: Path) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/a"
    arguments = ["--timeout", "5", "--give-up", "0", "--json"]
    run(capsys, "predict", bundle, address, "-o", str(out), *arguments)
    server.shutdown()


@pytest.mark.parametrize("suffix", [".mp4", ".ts"], ids=["a file", "without end"])
def test_the_sound_of_a_stream_is_kept_in_step(capsys, bundle, tmp_path: Path, suffix) -> None:
    clip = write_clip(tmp_path / f"a{suffix}", 20, seconds_of_sound=2.0)

    class Sends(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if suffix == ".mp4":  # of one without a length nobody knows the end
                self.send_header("Content-Length", str(clip.stat().st_size))
            self.end_headers()
            self.wfile.write(clip.read_bytes())

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    out = tmp_path / "out.mkv"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sends) as server:
        heard_by(server, capsys, bundle, out)
    before, after = sound_of(clip), sound_of(out)
    if suffix == ".ts":  # where each packet of AAC has a head of seven bytes
        before = [(seconds, data[7:]) for seconds, data in before]
    assert len(after) >= 0.8 * len(before)
    assert [data for _, data in after] == [data for _, data in before][: len(after)]
    last = lines_of(tmp_path / "out.jsonl")[-1]["frame"]  # live, some are left out
    in_step = before[0][0] - times_of(clip)[last]
    assert after[0][0] - times_of(out)[-1] == pytest.approx(in_step, abs=5e-3)
