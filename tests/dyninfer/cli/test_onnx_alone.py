"""One ONNX detector as a bundle: exported, compared with its file, converted, timed against it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import StaticRoute
from dyninfer.cli.detector_options import DETECTOR_OPTIONS
from dyninfer.exporters.cascade.original import sample_photos
from dyninfer.images.drawing import class_colour
from tests.dyninfer.cli.onnx_alone import write_detector, write_onnx_alone
from tests.dyninfer.cli.run import run
from tests.dyninfer.evaluation.coded import write_coded
from tests.exporters.cascade import detectors
from tests.exporters.cascade.half import halve


@pytest.fixture
def bundle(made_once, tmp_path: Path) -> Path:
    """A bundle with its detector's file beside it."""
    made = made_once("one ONNX file.dyn", write_onnx_alone)
    shutil.copy(made.with_suffix(".onnx"), tmp_path / "own.onnx")
    return shutil.copytree(made, tmp_path / "own.dyn")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_coded(tmp_path / "pictures", (0, 80, 160, 240))
    return tmp_path / "pictures"


def test_a_file_is_enough(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_detector(tmp_path / "whole.onnx")
    status, out, _ = run(capsys, "export", "onnx", "whole.onnx", "--licence", "MIT")
    assert status == 0
    assert out.startswith("whole.onnx: guessed decode detections, mean 0:0:0, std 255:255:255, ")
    assert "(change with --decode and so on)" in out
    assert "whole.onnx: finds 4 right on the built-in photos" in out
    assert "verification passed: 4 photos" in out
    assert "decision" not in out  # one way leaves nothing to decide
    assert out.endswith("next: dyninfer predict whole.dyn IMAGE_OR_FOLDER\n")
    manifest = Bundle.open(tmp_path / "whole.dyn").manifest
    assert (manifest.name, manifest.family) == ("whole", "onnx")
    assert manifest.route == StaticRoute(body="detector")
    assert manifest.class_names == ("left", "right")
    assert (manifest.source.file_name, manifest.source.licence) == ("whole.onnx", "MIT")
    status, _, err = run(capsys, "export", "onnx", "whole.onnx")
    assert (status, err.count("\n")) == (1, 1)
    assert "--overwrite" in err


def test_each_doubt_of_a_file_stands_on_a_line_of_its_own(capsys, tmp_path) -> None:
    model = onnx.load(write_detector(tmp_path / "bare.onnx"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    target = tmp_path / "bare.dyn"
    command = ("export", "onnx", str(tmp_path / "bare.onnx"), "-o", str(target), "--no-check")
    status, out, _ = run(capsys, *command)
    assert status == 0
    numbered, named = (line for line in out.splitlines() if line.startswith("warning: "))
    assert "gave only the class 1 on the built-in photos" in numbered
    assert "finds neither person, cat nor cup" in named


def test_options_have_no_prefix_and_may_follow_the_name(capsys, tmp_path) -> None:
    path = detectors.boxes_scores(4).save(tmp_path / "some.onnx", size=("h", "w"))
    target = tmp_path / "some.dyn"
    names = tmp_path / "names.txt"
    names.write_text("a\nA\nsofa\ncouch\n")  # which two detectors could not be told apart by
    status, out, _ = run(
        capsys,
        *("export", "onnx", f"{path},box-format=cxcywh", "--imgsz", "32x64", "--decode"),
        *(
            "boxes-scores",
            "--class-names",
            str(names),
            "--name",
            "mine",
            "-o",
            str(target),
            "--no-check",
        ),
    )
    assert status == 0, out
    manifest = Bundle.open(target).manifest
    assert (manifest.name, manifest.class_names) == ("mine", ("a", "A", "sofa", "couch"))
    assert (manifest.image_inputs["images"].height, manifest.image_inputs["images"].width) == (
        *(32, 64),
    )
    status, _, err = run(capsys, "export", "onnx", str(path), "-o", str(tmp_path / "other.dyn"))
    assert (status, err.count("\n")) == (1, 1)
    assert "give the size with --size N or HxW" in err


def test_the_help_names_every_option(capsys) -> None:
    status, out, _ = run(capsys, "export", "onnx", "--help")
    assert status == 0
    for option in DETECTOR_OPTIONS:
        assert (f"--{option.name}" in out) is (option.name != "config")  # of a checkpoint


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("yolov8n.onnx", "onnx yolov8n.onnx"),
        ("-o x.dyn 'a b.ONNX,size=3'", "onnx -o x.dyn 'a b.ONNX,size=3'"),
        ("a.onnx b.onnx", "cascade a.onnx b.onnx"),
        ("yolo yolov8n.onnx", "onnx yolov8n.onnx"),
        ("onxx yolov8n.onnx --size 64", "onnx yolov8n.onnx --size 64"),
        ("torch best.pt", "dynamicdet best.pt; export other detectors to ONNX first"),
        ("best.pt", "dynamicdet best.pt; export other detectors to ONNX first"),
    ],
)
def test_a_file_without_its_kind_is_answered_with_what_to_type(capsys, typed, meant) -> None:
    status, _, err = run(capsys, "export", *shlex.split(typed))
    assert status == 2
    expected = f"error: the kind of model comes first: dyninfer export {meant}"
    assert err.splitlines()[-1] == expected


def test_one_detector_for_a_cascade_is_told_of_the_other_command(capsys) -> None:
    status, _, err = run(capsys, "export", "cascade", "good.onnx")
    assert status == 2
    assert "for one, dyninfer export onnx good.onnx" in err


def test_verify_compares_with_the_file(capsys, bundle, tmp_path) -> None:
    source = ("--source", str(tmp_path / "own.onnx"))
    status, out, _ = run(capsys, "verify", str(bundle), *source, "--json")
    assert status == 0
    parity = json.loads(out)
    places = {check["where"] for check in parity["checks"]}
    assert (parity["passed"], places) == (True, {"detector", "exit 0"})
    write_detector(tmp_path / "other.onnx").write_bytes(b"other")
    status, _, err = run(capsys, "verify", str(bundle), "--source", str(tmp_path / "other.onnx"))
    assert (status, err.count("\n")) == (1, 1)
    assert "is not what the bundle was exported from" in err


def test_what_one_way_has_no_use_for_is_refused_in_one_line(capsys, bundle, pictures) -> None:
    images = ("--images", str(pictures))
    for arguments, part in (
        (("fit-router", str(bundle), *images), "has a single exit"),
        (("calibrate", str(bundle), *images, "--risk", "0.1"), "leave --risk out"),
        (("predict", str(bundle), str(pictures), "--speed", "30%"), "one way for all images"),
        (("bench", str(bundle), "--quick", "--against", "pytorch-eager"), "made from ONNX files"),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out, err.count("\n")) == (1, "", 1), err
        assert part in err


def test_the_export_shows_what_no_comparison_tells(capsys, bundle, tmp_path) -> None:
    picture = bundle / "pictures" / "detector.jpg"
    seen = cv2.imread(str(picture))
    photos = [photo.shape for photo in sample_photos()]
    assert seen.shape == (400, sum(round(width * 400 / height) for height, width, _ in photos), 3)
    label = seen[2, 2].astype(int)  # of the box around the whole first photo
    assert np.abs(label - class_colour(1)).max() < 60
    source = ("--source", str(tmp_path / "own.onnx"), "--random", "1")
    _, out, _ = run(capsys, "verify", str(bundle), *source)
    expected = f"read as meant: look at {picture}"
    assert expected in out
    names = tmp_path / "names.txt"
    names.write_text("right\nleft\n")  # the wrong way round
    arguments = ("export", "onnx", str(tmp_path / "own.onnx"), "--class-names", str(names))
    _, out, _ = run(capsys, *arguments, "-o", str(tmp_path / "x.dyn"), "--no-check")
    assert "own.onnx: finds 4 left on the built-in photos" in out
    assert f"look at {tmp_path / 'x.dyn' / 'pictures' / 'detector.jpg'}" in out


@pytest.mark.parametrize("own", ["fp16", "int8"])
def test_what_is_converted_already_is_not_converted_again(capsys, tmp_path, pictures, own) -> None:
    path = detectors.yolov8(80).save(tmp_path / "some.onnx")
    if own == "fp16":
        halve(path)
    else:
        quantize_dynamic(path, path, weight_type=QuantType.QUInt8)
    target = str(tmp_path / "some.dyn")
    assert run(capsys, "export", "onnx", str(path), "-o", target)[0] == 0
    onnxruntime = ("build", target, "--backend", "onnxruntime", "--images", str(pictures))
    for precision, part in (
        (own, f"some.dyn is in {own} already"),
        ({"fp16": "int8", "int8": "fp16"}[own], f"is in {own} already"),
    ):
        status, out, err = run(capsys, *onnxruntime, "--precision", precision)
        assert (status, out) == (1, "")
        assert part in err.splitlines()[-1]
    _, _, err = run(capsys, "build", target, "--backend", "onnxruntime")
    assert err.splitlines()[-1].endswith("as they are: there is nothing to build")
    out = str(tmp_path / "out")
    assert run(capsys, "predict", target, str(pictures), "--precision", own, "-o", out)[0] == 0


@pytest.mark.slow
def test_bench_takes_turns_with_the_original_file(capsys, bundle, tmp_path) -> None:
    original = tmp_path / "own.onnx"
    quick = ("--quick", "--seconds", "0.1", "--rounds", "2", "--batch", "1", "--synthetic", "8x8")
    record = tmp_path / "record.json"
    status, _, err = run(
        capsys, "bench", str(bundle), *quick, "--against", str(original), "-o", str(record)
    )
    assert status == 0, err
    document = json.loads(record.read_text())
    assert [ratio["baseline"] for ratio in document["baselines"]["ratios"]] == ["own.onnx"]
