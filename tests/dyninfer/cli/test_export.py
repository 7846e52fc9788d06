from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer

from dyninfer.bundle.folder import Bundle
from dyninfer.cli.detector_options import DETECTOR_OPTIONS, gather_sources, parse_triple
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    ClassIds,
    Decode,
    DetectorSource,
    Layout,
    Scores,
)
from dyninfer.exporters.dynamicdet.weights import read_weights
from dyninfer.images.spec import ColorOrder, ResizeMode
from tests import support
from tests.dyninfer.cli.run import run
from tests.exporters.cascade import detectors


def test_export_checks_itself_and_says_what_to_do_next(
    capsys: pytest.CaptureFixture[str],
    small_bundle: Path,
    small_checkpoint: Path,
    small_yaml: Path,
    stages_from: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    stages_from(small_bundle)
    target, checkpoint = tmp_path / "mine.dyn", tmp_path / "mine.pt"
    state = read_weights(small_checkpoint).state
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"ema": state, "model": other}, checkpoint)
    status, out, _ = run(
        capsys,
        *("export", "dynamicdet", str(checkpoint), "-o", str(target)),
        *("--config", str(small_yaml), "--imgsz", "64x96", "--licence", "MIT"),
    )
    assert status == 0
    assert "verification passed" in out
    assert "weights: 'ema' of mine.pt" in out
    assert f"dyninfer predict {target}" in out
    opened = Bundle.open(target)
    parity = opened.parity()
    assert parity is not None
    assert parity["passed"] is True
    assert opened.manifest.source.licence == "MIT"
    spec = opened.manifest.image_inputs["images"]
    assert (spec.height, spec.width) == (64, 96)


@pytest.mark.parametrize("size", ["big", "640x", "0", "-640", "640x640x3", "64.5"])
def test_an_image_size_that_is_none_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, size: str
) -> None:
    checkpoint = str(support.checkpoint_of("dy-yolov7"))
    target = tmp_path / "x.dyn"
    status, _, err = run(
        capsys, "export", "dynamicdet", checkpoint, "-o", str(target), f"--image-size={size}"
    )
    assert status == 2
    assert "384x640" in err
    assert not target.exists()


def test_a_size_that_the_stride_does_not_divide_names_the_nearest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    checkpoint = str(support.checkpoint_of("dy-yolov7"))
    status, _, err = run(
        capsys, "export", "dynamicdet", checkpoint, "-o", str(tmp_path / "x.dyn"), "--imgsz", "100"
    )
    assert status == 1
    assert "96" in err
    assert "128" in err
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, _, err = run(
        capsys, "export", "dynamicdet", str(tmp_path / "no.pt"), "-o", str(tmp_path / "x.dyn")
    )
    assert status == 1
    assert err.strip().endswith("check the path of the checkpoint")
    assert not list(tmp_path.iterdir())


def test_an_existing_bundle_is_kept_unless_told_otherwise(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, small_checkpoint: Path
) -> None:
    before = (small_bundle / "bundle.json").read_bytes()
    status, _, err = run(
        capsys, "export", "dynamicdet", str(small_checkpoint), "-o", str(small_bundle)
    )
    assert status == 1
    assert "--overwrite" in err
    assert (small_bundle / "bundle.json").read_bytes() == before


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    cheap = detectors.yolov8(80).save(tmp_path / "cheap.onnx", size=("h", "w"))
    good = detectors.detections(80, seed=1).save(tmp_path / "good.onnx", layout="nhwc")
    return str(cheap), str(good)


def test_two_files_and_one_size_are_enough(capsys, files, tmp_path) -> None:
    target = tmp_path / "pair.dyn"
    status, out, _ = run(
        capsys,
        *("export", "cascade", "--first", files[0], "--first-size", "32x64"),
        *("--second", files[1], "-o", str(target), "--licence", "MIT", "--name", "mine"),
    )
    assert status == 0
    assert "cheap.onnx: guessed decode yolov8" in out
    assert "good.onnx: guessed decode detections" in out
    assert "verification passed: 4 photos" in out
    assert "weights from cheap.onnx" in out
    assert "weights from good.onnx" in out
    last = out.strip().splitlines()[-1]
    assert last == (f"next: dyninfer fit-router {target} --images PHOTOS [--annotations COCO.json]")
    opened = Bundle.open(target)
    assert (opened.manifest.name, opened.manifest.source.licence) == ("mine", "MIT")
    assert opened.parity()["passed"] is True


def test_positions_take_options_after_a_comma(capsys, files, tmp_path) -> None:
    target = tmp_path / "pair.dyn"
    status, out, _ = run(
        capsys,
        *("export", "cascade", f"{files[0]},size=32x64,decode=yolov8,mean=0,std=255", files[1]),
        *("-o", str(target), "--no-check"),
    )
    assert status == 0
    assert "class-names COCO's 80" in out
    assert "verification" not in out
    status, out, _ = run(capsys, "verify", str(target), "--source", str(tmp_path), "--json")
    assert status == 0
    assert json.loads(out)["passed"] is True
    more = ("--source", files[1], "--source", files[0], "--random", "1")
    status, out, _ = run(capsys, "verify", str(target), *more)
    assert status == 0
    assert "verification passed" in out


def test_the_name_of_the_bundle_comes_from_the_files(capsys, files, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("export", "cascade", f"{files[0]},size=32x64", files[1], "--no-check")
    assert run(capsys, *arguments)[0] == 0
    assert Bundle.open(tmp_path / "cheap-good.dyn").manifest.name == "cheap-good"
    status, _, err = run(capsys, *arguments)
    assert status == 1
    assert "--overwrite" in err
    assert run(capsys, *arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("a.onnx",), "two detectors"),
        ((), "two detectors"),
        (("a.onnx", "--second", "b.onnx"), "not both ways"),
        (("--second", "b.onnx"), "--first is missing"),
        (("--first", "a.onnx", "--third", "b.onnx"), "--second is missing"),
        (("a.onnx", "b.onnx", "--third-size", "32"), "no --third"),
        (("a.onnx,magic=3", "b.onnx"), "magic= of a.onnx is unknown"),
        (("a.onnx,size=big", "b.onnx"), "384x640"),
        (("a.onnx,decode=ssd", "b.onnx"), "yolo-end2end"),
        (("a.onnx,size=32", "b.onnx", "--first-size", "32"), "given twice"),
        (("a.onnx,mean=1:2", "b.onnx"), "'1:2'"),
        (("a.onnx,mean=x", "b.onnx"), "'x'"),
        (("a.onnx,normalise=unit,std=3", "b.onnx"), "one of them"),
        (("a.onnx", "b.onnx", "--classes", "some"), "common"),
    ],
)
def test_wrong_usage(capsys, tmp_path, monkeypatch, arguments, part) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, "export", "cascade", "-o", "x.dyn", *arguments)
    assert status == 2
    assert part in re.sub(r"[\s│]+", " ", err)
    assert not list(tmp_path.iterdir())


def test_a_detector_that_is_none_is_one_line(capsys, files, tmp_path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    for bad in ("no.onnx", "text.onnx"):
        target = tmp_path / "x.dyn"
        status, _, err = run(
            capsys, "export", "cascade", str(tmp_path / bad), files[1], "-o", str(target)
        )
        assert status == 1
        assert bad in err
        assert len(err.strip().splitlines()) == 1
        assert not target.exists()


EVERY = {
    "decode": ("boxes-scores", Decode.BOXES_SCORES),
    "size": ("384x640", (384, 640)),
    "mean": ("1,2,3", (1.0, 2.0, 3.0)),
    "std": ("4", (4.0, 4.0, 4.0)),
    "layout": ("nhwc", Layout.NHWC),
    "color": ("bgr", ColorOrder.BGR),
    "resize": ("pad_bottom_right", ResizeMode.PAD_BOTTOM_RIGHT),
    "class-names": ("names.txt", Path("names.txt")),
    "class-offset": ("1", 1),
    "class-ids": ("coco91", ClassIds.COCO91),
    "boxes": ("normalised", BoxUnit.NORMALISED),
    "box-format": ("yxyx", BoxFormat.YXYX),
    "scores": ("logits", Scores.LOGITS),
    "cell-offset": ("0", 0.0),
    "config": ("tf_efficientdet_d6", "tf_efficientdet_d6"),
}


def test_every_option_reaches_its_detector_both_ways() -> None:
    assert {*EVERY, "normalise"} == {option.name for option in DETECTOR_OPTIONS}
    wanted = DetectorSource(
        Path("b.onnx"), **{name.replace("-", "_"): value for name, (_, value) in EVERY.items()}
    )
    options = {f"second_{n.replace('-', '_')}": text for n, (text, _) in EVERY.items()}
    named = gather_sources([], {"first": "a.onnx", "second": "b.onnx", **options})
    assert named == [DetectorSource(Path("a.onnx")), wanted]
    spec = ",".join(["b.onnx", *(f"{name}={text}" for name, (text, _) in EVERY.items())])
    assert gather_sources(["a.onnx", spec, "c.onnx"], {})[1] == wanted


@pytest.mark.parametrize(
    ("spec", "mean", "std", "color"),
    [
        ("normalise=unit", (0, 0, 0), (255, 255, 255), None),
        ("normalise=none", (0, 0, 0), (1, 1, 1), None),
        ("normalise=imagenet", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), ColorOrder.RGB),
        (
            "normalise=imagenet,color=bgr",
            (103.53, 116.28, 123.675),
            (57.375, 57.12, 58.395),
            ColorOrder.BGR,
        ),
    ],
)
def test_normalisations_by_name(spec, mean, std, color) -> None:
    source = gather_sources([f"a.onnx,{spec}", "b.onnx"], {})[0]
    assert (source.mean, source.std, source.color) == (mean, std, color)


def test_a_comma_in_a_file_name_is_part_of_it() -> None:
    source = gather_sources(["a,b.onnx,size=32", "c.onnx"], {})[0]
    assert source == DetectorSource(Path("a,b.onnx"), size=(32, 32))


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "a"])
def test_three_numbers_or_one(text) -> None:
    with pytest.raises((ValueError, typer.BadParameter)):
        parse_triple(text)


def test_the_help_names_the_options_of_one_detector(capsys) -> None:
    status, out, _ = run(capsys, "export", "cascade", "--help")
    assert status == 0
    for option in DETECTOR_OPTIONS:
        assert f"--first-{option.name}" in out
    assert "--second-decode" not in out
    assert "likewise --second-" in out
