from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer

import dyninfer
from dyninfer.builds.spec import parse_precision, this_system
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.writing import check_target
from dyninfer.cli import build_run
from dyninfer.cli.build_options import BuildOptions, IoChoice, parse_bytes
from dyninfer.engines.trt.library import Flavour, Library, load_library
from dyninfer.installing import pip_install
from tests import support
from tests.dyninfer.cli import frail
from tests.dyninfer.cli.run import run, write_picture

RTX = ("--backend", "tensorrt-rtx")
ORT = ("--backend", "onnxruntime")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return support.write_two_exits(tmp_path / "two.dyn")


def engines(bundle: Path) -> list[Path]:
    return sorted((bundle / "engines").glob("*/build.json"))


@pytest.mark.parametrize("arguments", [("--list-targets",), ("--for", "list")])
def test_the_devices_fit_eighty_columns(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run(capsys, "build", *arguments)

    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    (volta,) = [line for line in out.splitlines() if line.startswith("v100")]
    for part in ("70", "10.4.0", "16, 32", "fp32/16 int8"):
        assert part in volta
    for name in ("t4", "a100", "h100", "rtx30", "rtx40", "rtx50", "jetson-orin", "jetson-thor"):
        assert f"\n{name} " in out


def test_the_devices_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "build", "--list-targets", "--json")

    assert status == 0
    presets = {entry["name"]: entry for entry in json.loads(out)}
    assert presets["v100"]["last_tensorrt"] == "10.4.0"
    assert presets["rtx40"]["sm"] == "sm89"


@pytest.mark.usefixtures("needs_rtx")
def test_a_build_for_several_gpus_is_made_once_and_listed(
    capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    arguments = ("build", str(bundle), *RTX, "--for", "t4,a100,rtx30,rtx40,rtx50")
    for said in ("built:", "already built:"):
        status, out, err = run(capsys, *arguments)
        assert status == 0
        assert err.startswith(said)
        assert f"sm120, {this_system()}, built without a GPU; batch 1:4:16" in out

    status, out, _ = run(capsys, "info", str(bundle), "--json")
    (listed,) = json.loads(out)["builds"]
    assert listed["spec"]["target"]["compute_capabilities"] == ["7.5", "8.0", "8.6", "8.9", "12.0"]
    assert listed["folder"] == engines(bundle)[0].parent.name
    assert run(capsys, "info", str(bundle))[1].count("tensorrt-rtx") == 1


@pytest.mark.usefixtures("needs_rtx")
def test_without_a_gpu_tensorrt_rtx_builds_for_all_from_ampere_on(
    capsys: pytest.CaptureFixture[str], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_device: int) -> object:
        raise dyninfer.BackendUnavailable("no GPU")

    monkeypatch.setattr("dyninfer.engines.trt.cuda.open_cuda", none)
    status, out, _ = run(capsys, "build", str(bundle), *RTX, "--json")

    assert status == 0
    target = json.loads(out)["spec"]["target"]
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(target["compute_capabilities"])
    assert "7.5" not in target["compute_capabilities"]
    assert target["gpu_name"] is None


@pytest.mark.usefixtures("needs_rtx")
def test_no_build_shows_two_fingerprints_side_by_side(
    capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    wanted = ("build", str(bundle), *RTX, "--no-build", "--for")
    status, out, err = run(capsys, *wanted, "rtx30")
    assert status == 1
    assert "has no builds yet" in err.replace("it has", "has")
    assert not (bundle / "engines").exists()

    run(capsys, "build", str(bundle), *RTX, "--for", "rtx30", "--batch", "1:1:2")
    assert run(capsys, *wanted, "rtx30", "--batch", "1:1:2")[0] == 0
    status, out, err = run(capsys, *wanted, "rtx40")

    assert status == 1
    assert err.count("\n") == 1
    (target,) = [line for line in out.splitlines() if "target" in line]
    assert target.index("sm86") < target.index("sm89")
    (batch,) = [line for line in out.splitlines() if "batch" in line]
    assert batch.index("1:1:2") < batch.index("1:4:16")
    for part in ("built sm86", "wanted sm89", "--for sm89 --batch 1:4:16"):
        assert part in err
    status, out, _ = run(capsys, *wanted, "rtx40", "--json")
    assert [d["field"] for d in json.loads(out)["differences"]] == ["target", "batch"]


@pytest.mark.usefixtures("needs_rtx")
def test_a_changed_engine_is_refused_and_force_replaces_it(
    capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    arguments = ("build", str(bundle), *RTX, "--for", "rtx30")
    run(capsys, *arguments)
    (engine,) = (bundle / "engines").glob("*/*second.engine")
    engine.write_bytes(engine.read_bytes()[:-1] + b"?")

    status, _, err = run(capsys, *arguments)
    assert status == 1
    assert "was changed after it was built" in err
    assert "--force" in err
    assert run(capsys, *arguments, "--force")[0] == 0
    assert run(capsys, *arguments)[2].startswith("already built")


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (("--backend", "cudnn"), 2, "cudnn"),
        ((*RTX, "--for", "voodoo"), 1, "'voodoo'"),
        ((*RTX, "--for", "v100"), 1, "TensorRT 10.4.0 or earlier"),
        ((*RTX, "--for", "rtx30", "--batch", "4:1"), 1, "1:4:16"),
        ((*RTX, "--for", "rtx30", "--precision", "int7"), 1, "'int7'"),
        ((*RTX, "--for", "rtx30", "--precision", "neck=fp16"), 1, "'neck'"),
        ((*RTX, "--for", "rtx30", "--workspace", "much"), 2, "512MB"),
        ((*RTX, "--for", "rtx30", "--timing-cache", "t.bin"), 1, "--timing-cache"),
        ((*RTX, "--for", "rtx30", "--version-compatible"), 1, "compatibility"),
        ((*RTX, "--device", "gpu"), 2, "cuda:0"),
        ((*ORT,), 1, "--precision int8"),
        ((*ORT, "--for", "rtx30", "-p", "int8"), 2, "--for"),
        ((*ORT, "-p", "int8", "--method", "guess"), 2, "entropy"),
    ],
)
@pytest.mark.usefixtures("needs_rtx")
def test_what_cannot_be_done_is_told_in_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    arguments: tuple[str, ...],
    status: int,
    part: str,
) -> None:
    before = support.files_below(bundle)
    found, _, err = run(capsys, "build", str(bundle), *arguments)

    assert found == status
    assert part in err
    assert status == 2 or err.count("\n") == 1
    assert support.files_below(bundle) == before


def test_a_bundle_is_needed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "build", "--for", "rtx30")[0] == 2
    status, _, err = run(capsys, "build", str(tmp_path / "none.dyn"), *RTX)
    assert status == 1
    assert "none.dyn does not exist" in err


def test_tensorrt_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_library.cache_clear()
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    status, _, err = run(capsys, "build", str(bundle))
    load_library.cache_clear()

    assert status == 1
    assert err.count("\n") == 1
    assert pip_install("tensorrt") in err


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        write_picture(folder / f"{index}.png", 30 + index, 40)
    return folder


def test_int8_for_onnx_runtime_is_converted_measured_and_opened(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_bundle, tmp_path / "small.dyn"))
    seen = pictures(tmp_path / "seen", 12)
    arguments = ("build", str(folder), *ORT, "-p", "int8", "--images", str(seen))

    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert "on 3 pictures" in out  # every fifth of twelve is held out
    assert "decisions flip" in out
    assert run(capsys, *arguments)[2].splitlines()[-1].startswith("already built")
    write_picture(seen / "more.png", 33, 44)
    assert "built:" in run(capsys, *arguments)[2].replace("already built:", "")
    assert len(engines(folder)) == 1

    images = support.random_images(2, 64, 96)
    with dyninfer.load(folder) as plain, dyninfer.load(folder, precision="int8") as int8:
        plain.policy = int8.policy = dyninfer.AlwaysHard()
        exact, rounded = plain.infer({"images": images}), int8.infer({"images": images})
        record = int8.engine_record()
        differences = plain.engine_record().differences(record, times=False)
    scores = [support.stacked(found, "class_scores") for found in (exact, rounded)]
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.5
    assert {stage: p.value for stage, p in record.precision.items()} == {
        "first": "int8",
        "router": "fp32",
        "head": "int8",
        "second": "int8",
    }
    assert any(text.startswith("precision fp32, not first=int8") for text in differences)
    assert any(text.startswith("other stage files (first, head, second)") for text in differences)
    _both_are_calibrated(capsys, folder, seen)


def test_int8_for_openvino_is_a_build_of_its_own(capsys, tmp_path) -> None:
    pytest.importorskip("openvino")
    bundle = frail.write_static(tmp_path / "s.dyn", "is robust")
    seen = frail.write_pictures(tmp_path / "seen", range(10, 240, 20))
    for gate in ((), ("--gate", "differ=50%")):
        for backend in ("onnxruntime", "openvino"):
            asked = ("build", str(bundle), "--backend", backend, "-p", "int8", "-i", str(seen))
            for said in ("built: ", "already built: "):
                status, out, err = run(capsys, *asked, *gate)
                assert status == 0, err
                assert err.splitlines()[-1].startswith(said)
                assert ("int8 for openvino body" in out) is (backend == "openvino")
    assert len(engines(bundle)) == 2
    status, out, err = run(capsys, "info", str(bundle))
    assert "body,head" in out  # which are for openvino


@pytest.mark.parametrize(
    "asked", [(*ORT, "-p", "fp16"), (*ORT, "-p", "fp32"), (*RTX, "-p", "int8")], ids=str
)
def test_maps_in_8_bits_need_stages_in_int8_on_a_processor(capsys, bundle, asked) -> None:
    if asked[:2] == RTX:
        pytest.importorskip("tensorrt_rtx")
    status, _, err = run(capsys, "build", str(bundle), *asked, "--io", "int8")
    assert status == 2
    assert "--io int8 goes with stages in int8 for onnxruntime or openvino on x86" in " ".join(
        err.split()
    )


def _both_are_calibrated(capsys: pytest.CaptureFixture[str], bundle: Path, seen: Path) -> None:
    """What an error tells to run is enough, and takes nothing from the other engines."""
    asked = (
        "predict",
        str(bundle),
        str(seen),
        "--speed",
        "30%",
        "-o",
        str(bundle.parent / "out"),
        "--overwrite",
    )
    assert run(capsys, "calibrate", str(bundle), "--images", str(seen))[0] == 0
    status, _, err = run(capsys, *asked, "--precision", "int8")
    assert status == 1
    command = f"dyninfer calibrate {bundle} --images FOLDER --precision int8"
    assert err.rstrip().endswith(f"run: {command}")
    told = command.replace("FOLDER", str(seen)).split()[1:]
    status, out, _ = run(capsys, *told)
    assert status == 0
    assert f"dyninfer predict {bundle} PICTURES --precision int8 --speed" in out
    for more in ((), ("--precision", "int8")):
        assert run(capsys, *asked, *more)[0] == 0
    with dyninfer.load(bundle, precision="int8") as int8:
        command = f"{command} --annotations LABELS"
        with support.refuses(dyninfer.PolicyError, f"AP; run: {command}"):
            int8.policy = dyninfer.Accuracy(max_ap_drop=1)
        int8.monitor.start()
    shown = run(capsys, "info", str(bundle))[1]
    assert shown.count("calibrated on 13 pictures") == 2
    assert "ms, fp32, onnxruntime" in shown
    assert len(json.loads(run(capsys, "info", str(bundle), "--json")[1])["calibrations"]) == 2


@pytest.mark.usefixtures("needs_rtx")
def test_fp16_is_built_again_for_another_gpu_without_pictures(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_bundle, tmp_path / "small.dyn"))
    seen = pictures(tmp_path / "seen", 2)
    first = ("build", str(folder), *RTX, "-p", "head=fp16", "--for", "rtx30")
    assert run(capsys, *first, "--images", str(seen))[0] == 0

    status, _, err = run(capsys, *first[:-1], "rtx40")

    assert status == 0
    assert "pictures are few" not in err
    found = [json.loads(path.read_text()) for path in engines(folder)]
    assert len(found) == 2
    assert len({build["stages"]["head"]["onnx"]["sha256"] for build in found}) == 1
    assert all(build["stages"]["second"]["onnx"] is None for build in found)
    assert all(build["conversion"]["image_count"] == 2 for build in found)
    assert len(list((folder / "engines").glob("*/parity.json"))) == 2


def test_tensors_travel_as_they_are_asked_to(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "small.dyn"))
    half = ("build", str(bundle), *ORT, "-p", "fp16", "--json")
    _, plain, _ = run(capsys, *half)
    assert json.loads(plain)["tensors"] == {}  # as usual with ONNX Runtime
    status, lean, _ = run(capsys, *half, "--input", "uint8", "--io", "fp16")
    assert status == 0
    made = json.loads(lean)
    assert made["spec"]["options"] == {"input": "uint8", "io": "fp16"}
    assert made["fingerprint"] != json.loads(plain)["fingerprint"]
    assert {made["tensors"].pop("images"), *made["tensors"].values()} == {"uint8", "float16"}
    with dyninfer.load(bundle, precision="fp16") as detector:
        assert detector.prepare(support.random_pictures(1))["images"].dtype == np.uint8
    _, shown, _ = run(capsys, "info", str(bundle))
    assert "input uint8" in " ".join(shown.split())
    status, _, err = run(capsys, "build", str(bundle), *ORT, "-p", "int8", "--io", "fp16")
    assert status == 2
    assert "--io fp16 goes with stages in fp16" in " ".join(err.split())


@pytest.mark.usefixtures("needs_rtx")
def test_maps_travel_in_fp16_by_default_and_engines_compile(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "small.dyn"))
    picture = tmp_path / "one.png"
    write_picture(picture, 48, 64)
    arguments = ("build", str(bundle), *RTX, "--for", "rtx40", "--json")
    for more, expected in (
        (("-p", "fp16", "--input", "uint8"), {"uint8", "float16"}),
        (("-p", "fp16", "--io", "fp32"), set()),
        (("-p", "first=int8", "-i", str(picture)), {"float16"}),
    ):
        status, out, err = run(capsys, *arguments, *more)
        assert status == 0, err
        assert {*json.loads(out)["tensors"].values()} == expected
    made = json.loads(out)
    assert made["spec"]["options"] == {"io": "fp16"}
    first = onnx.load(Path(made["folder"]) / made["stages"]["first"]["onnx"]["file"])
    assert first.opset_import[0].version == 19
    status, _, err = run(capsys, *arguments, "--io", "fp16")
    assert status == 2
    assert "--io fp16 goes with stages in fp16" in " ".join(err.split())


@pytest.mark.usefixtures("needs_rtx")
def test_tensorrt_8_gets_float32_around_8_bits(monkeypatch, small_bundle: Path) -> None:
    """Its parser takes float16 scales for float32 ones, and finds them not to be positive."""
    manifest, library = Bundle.read(small_bundle).manifest, load_library(Flavour.RTX)
    plan = parse_precision("int8", manifest)
    assert BuildOptions().travel(plan, library) == {"io": "fp16"}
    assert BuildOptions(io=IoChoice.FP32).travel(plan, library) == {}
    monkeypatch.setattr(Library, "keeps_types", False)
    assert BuildOptions().travel(plan, library) == {}
    assert BuildOptions().travel(parse_precision("fp16", manifest), library) == {"io": "fp16"}
    with pytest.raises(typer.BadParameter, match="from TensorRT 10 on"):
        BuildOptions(io=IoChoice.FP16).travel(plan, library)


@pytest.mark.usefixtures("needs_rtx")
@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_ctrl_c_ends_a_build_and_leaves_nothing(small_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_bundle, tmp_path / "small.dyn"))
    command = [sys.executable, "-m", "dyninfer", "build", str(folder), *RTX, "--for", "rtx30"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=support.ROOT)
    deadline = time.monotonic() + 60
    while not list((folder / "engines").glob(".*.dyninfer-new-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Fatal" not in err
    assert support.files_below(folder / "engines").keys() <= {".lock"}


def read_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As on a disk that cannot be written; root may write everywhere else."""
    mkdir, access = os.mkdir, os.access

    def refusing(path, *mode):
        if folder in Path(path).parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        mkdir(path, *mode)

    def refused(path, mode):
        below = folder in (Path(path), *Path(path).parents)
        return access(path, mode) and not (below and mode == os.W_OK)

    monkeypatch.setattr(os, "mkdir", refusing)
    monkeypatch.setattr(os, "access", refused)


def test_a_bundle_that_cannot_be_written_is_told_before_the_work(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_picture(tmp_path / "a.png", 60, 80)
    worked: list[object] = []
    monkeypatch.setattr(build_run, "_convert", lambda *_: worked.append(1))
    before = support.files_below(bundle)
    read_only(monkeypatch, bundle)
    command = ["build", str(bundle), *ORT, "-p", "int8", "--images", str(tmp_path / "a.png")]
    status, _, err = run(capsys, *command)
    assert status == 1
    assert "cannot be written: Read-only file system" in err
    assert err.count("\n") == 1
    target = bundle / "inner.dyn"
    with support.refuses(dyninfer.ExportError, "read-only"):
        check_target(target, overwrite=False)
    assert worked == []
    assert support.files_below(bundle) == before


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("2k", 2048), ("512MB", 512 << 20), ("1.5GiB", 3 << 29), (" 2 G ", 2 << 30)],
)
def test_sizes_are_read_in_powers_of_1024(text: str, size: int) -> None:
    assert parse_bytes(text) == size
