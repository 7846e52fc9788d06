"""``build --backend auto``: what is measured decides, within the gate, and is opened afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import dyninfer
from dyninfer.benchmarks.auto import mixes, stages
from dyninfer.builds.search import list_builds
from dyninfer.builds.spec import JOINED, made_for_openvino
from dyninfer.bundle.folder import Bundle
from dyninfer.engines import host_versions
from tests import support
from tests.dyninfer.cli import frail
from tests.dyninfer.cli.run import run

DARK = range(10, 240, 20)


def measure_as(monkeypatch: pytest.MonkeyPatch, ms: dict[str, float], listed: float = 0.9) -> None:
    """Let places take these milliseconds an image, by ``stage backend precision batch``.

    Each may be left out from the right; what is not named takes 10. A list takes ``listed`` of a
    loop's time.
    """

    def measured(detectors, stage, _reads, batches):
        def each(place, batch) -> float:
            words = [stage, place.backend, place.precision.value, str(batch)]
            names = (" ".join(words[:count]) for count in range(4, 0, -1))
            return next((ms[name] for name in names if name in ms), 10.0)

        places = stages.places_of(detectors, stage)
        return {n: {place: [n * each(place, n)] * 5 for place in places} for n in batches}

    monkeypatch.setattr(mixes, "measure_stage", measured)
    monkeypatch.setattr(mixes.MixFinder, "_whole", lambda _self, _stages, _batch: (0.5, listed))


def only_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where OpenVINO is not installed."""
    from dyninfer.builds import auto

    versions = {"onnxruntime": host_versions()["onnxruntime"]}
    for module in (auto, mixes, stages):
        monkeypatch.setattr(module, "host_versions", lambda: versions)


def build(capsys: pytest.CaptureFixture[str], bundle: Path, *more: str) -> tuple[dict, str]:
    """The record as JSON, and what was said on stderr."""
    status, out, err = run(capsys, "build", str(bundle), "--backend", "auto", "--json", *more)
    assert status == 0, err
    return json.loads(out), err


def places(record: dict, number: int = 0) -> dict[str, str]:
    found = record["mixes"][number]["stages"].items()
    return {stage: f"{place['backend']} {place['precision']}" for stage, place in found}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return frail.write_pictures(tmp_path / "pictures", DARK)


def test_it_really_measures_and_shows_a_table(capsys, tmp_path, monkeypatch, pictures) -> None:
    monkeypatch.setattr(stages, "SECONDS", 0)
    path = support.write_two_exits(tmp_path / "two.dyn")
    command = ("build", str(path), "--backend", "auto", "-i", str(pictures), "--batch", "2")
    status, out, err = run(capsys, *command)
    assert status == 0, err
    assert "for each of 4 stages, within the gate flips=1%,differ=2% on 12 pictures" in err
    assert all(len(line) <= 80 for line in out.splitlines())
    for said in ("stage", "candidate", "ratio", "chosen", "why", "onnxruntime fp32", "batch 1: "):
        assert said in out
    with dyninfer.load(path, backend="auto") as detector, dyninfer.load(path) as plain:
        photos = sorted(pictures.iterdir())
        assert [d.exit_index for d in detector(photos)] == [d.exit_index for d in plain(photos)]
    status, again, err = run(capsys, *command)
    assert (status, again) == (0, out)  # what was measured is shown, and not measured again
    assert "measuring" not in err
    assert run(capsys, *command[:4], "--no-build")[:2] == (0, out)
    status, _, err = run(capsys, *command, "--gate", "flips=3%", "--no-build")
    assert status == 1
    assert "the gate was flips=1%,differ=2%" in err


def test_each_stage_goes_where_it_is_fastest(capsys, tmp_path, monkeypatch, pictures) -> None:
    pytest.importorskip("openvino")
    measure_as(
        monkeypatch,
        {
            "second openvino fp32": 5.0,
            "first openvino fp32": 9.9,  # not worth another backend
            "first onnxruntime fp32 4": 4.0,
            "router openvino": 20.0,
            "first openvino bf16": 30.0,
            "second openvino bf16": 30.0,
        },
    )
    path = support.write_two_exits(tmp_path / "two.dyn")
    record, _ = build(capsys, path, "-i", str(pictures))
    assert [mix["batch"] for mix in record["mixes"]] == [1, 4]
    assert record["best_batch"] == 4
    for number in (0, 1):
        assert places(record, number) == {
            "first": "onnxruntime fp32",
            "head": "onnxruntime fp32",
            "router": "onnxruntime fp32",
            "second": "openvino fp32",
        }
    assert record["gate"]["found"] == {"flips": 0, "differ": 0}
    why = {
        candidate["place"]["backend"]: candidate["why"]
        for candidate in record["mixes"][0]["candidates"]["first"]
        if candidate["place"]["precision"] == "fp32"
    }
    assert why == {"onnxruntime": "others are not 3% faster", "openvino": ""}
    with dyninfer.load(path, backend="auto") as detector:
        assert detector.max_batch == 4
        libraries = {name: engine.library for name, engine in detector.engines.items()}
        assert libraries == {n: "OpenVINO" if n == "second" else "ONNX Runtime" for n in libraries}
    out = tmp_path / "out"
    status, _, err = run(
        capsys, "predict", str(path), str(pictures), "--backend", "auto", "-o", str(out), "--json"
    )
    assert (status, len((out / "predictions.jsonl").read_text().splitlines())) == (0, 12), err
    status, shown, err = run(
        capsys, "verify", str(path), "-i", str(pictures), "--backend", "auto", "--json"
    )
    assert status == 0, err
    assert json.loads(shown)["backend"].endswith("second=openvino")


def test_a_list_that_is_slower_than_a_loop_is_run_one_by_one(
    capsys, tmp_path, monkeypatch, pictures
) -> None:
    only_onnx_runtime(monkeypatch)
    measure_as(monkeypatch, {"first onnxruntime fp32 8": 1.0}, listed=1.06)
    path = support.write_two_exits(tmp_path / "two.dyn")
    record, _ = build(capsys, path, "-i", str(pictures))
    assert (record["best_batch"], [mix["batch"] for mix in record["mixes"]]) == (1, [1])
    assert list(record["versions"]) == ["onnxruntime"]
    assert record["gate"] is None
    with dyninfer.load(path, backend="auto") as detector:
        assert (detector.backend, detector.max_batch) == ("onnxruntime", 1)


def builds_in(path: Path) -> set[str]:
    return {folder.name for folder in (path / "engines").iterdir() if folder.is_dir()}


def test_what_loses_too_much_falls_back_stage_by_stage(
    capsys, tmp_path, monkeypatch, pictures
) -> None:
    """int8 is fastest in every stage, and the first one's loses digits."""
    only_onnx_runtime(monkeypatch)
    path = frail.write_cascade(tmp_path / "c.dyn", "loses digits")
    made = ("build", str(path), "--backend", "onnxruntime", "-p", "int8", "-i", str(pictures))
    assert run(capsys, *made)[0] == 0
    measure_as(monkeypatch, {"first onnxruntime int8": 4.0, "second onnxruntime int8": 5.0})
    builds = builds_in(path)
    record, err = build(capsys, path, "-i", str(pictures), "--gate", "flips=1%,differ=2%")
    chosen = places(record)
    assert chosen["first"] == "onnxruntime fp32"
    assert chosen["second"] == "onnxruntime int8"
    (fall,) = [line for line in err.splitlines() if "falls back" in line]
    assert fall.startswith(
        "first falls back to its next fastest candidate: on onnxruntime in int8, "
    )
    assert "beyond the gate flips=1%,differ=2%" in fall
    told = {
        candidate["place"]["precision"]: candidate["why"]
        for candidate in record["mixes"][0]["candidates"]["first"]
    }
    assert "beyond the gate flips=1%,differ=2%" in told["int8"]
    assert len(builds_in(path) - builds) == 1  # the files of this very mix
    assert list_builds(Bundle.open(path))[1] == []
    with dyninfer.load(path, backend="auto") as detector:
        assert {n: p.value for n, p in detector.engine_record().precision.items()} == {
            stage: place.split()[1] for stage, place in chosen.items()
        }
    assert Bundle.open(path).path == path


def test_int8_is_that_of_each_stages_backend(
    capsys, tmp_path, monkeypatch, pictures, caplog
) -> None:
    pytest.importorskip("openvino")
    path = frail.write_cascade(tmp_path / "c.dyn", "is robust")
    for backend in ("onnxruntime", "openvino"):
        made = ("build", str(path), "--backend", backend, "-p", "int8", "-i", str(pictures))
        assert run(capsys, *made)[0] == 0
    builds = list_builds(Bundle.open(path))[0]
    mine = {bool(made_for_openvino(build.spec)): build for build in builds.values()}
    fast = dict.fromkeys((f"{stage} onnxruntime int8" for stage in ("head", "second", "last")), 5.0)
    measure_as(monkeypatch, {"first openvino int8": 4.0} | fast)
    record, _ = build(capsys, path, "-i", str(pictures), "--gate", "flips=100%,differ=100%")
    chosen = places(record)
    assert chosen["first"] == "openvino int8"
    assert chosen["second"] == "onnxruntime int8"
    with dyninfer.load(path, backend="auto") as detector:
        assert detector.build is not None
        joined = detector.build.build
    assert made_for_openvino(joined.spec) == {"first"}
    for stage, of_openvino in (("first", True), ("second", False)):
        assert joined.onnx_sha256()[stage] == mine[of_openvino].onnx_sha256()[stage]
    assert len({build.onnx_sha256()["first"] for build in mine.values()}) == 2
    more = frail.write_pictures(tmp_path / "more", range(20, 120, 10))
    again = ("--backend", "openvino", "-p", "int8", "-i", str(more))
    assert run(capsys, "build", str(path), *again, "--force")[0] == 0
    gate = ("--gate", "flips=100%,differ=100%")
    build(capsys, path, "-i", str(pictures), *gate, "--force")
    with dyninfer.load(path, backend="auto") as detector:
        assert detector.build is not None
        renewed = detector.build.build.onnx_sha256()["first"]
        folder = detector.build.path
    new = [b for b in list_builds(Bundle.open(path))[0].values() if JOINED not in b.spec.options]
    assert renewed in {b.onnx_sha256()["first"] for b in new if made_for_openvino(b.spec)}
    assert renewed != joined.onnx_sha256()["first"]
    shutil.rmtree(folder)
    with caplog.at_level("WARNING", "dyninfer"), dyninfer.load(path, backend="auto") as detector:
        assert detector.build is None
    assert "it was measured with other files in int8 than those of" in caplog.text


def test_maps_travel_as_a_mix_needs_them(capsys, small_bundle, tmp_path, monkeypatch) -> None:
    """In the build all stages are in int8, and maps in 8 bits; beside others they are not."""
    only_onnx_runtime(monkeypatch)
    path = Path(shutil.copytree(small_bundle, tmp_path / "small.dyn"))
    pictures = frail.write_pictures(tmp_path / "pictures", DARK)
    made = ("build", str(path), "--backend", "onnxruntime", "-p", "int8", "-i", str(pictures))
    assert run(capsys, *made)[0] == 0
    asked = ("-i", str(pictures), "--gate", "flips=100%,differ=100%", "--force")
    maps = {}
    for lacking in (None, "second"):
        faster = {"first", "head", "second"} - {lacking}
        measure_as(monkeypatch, {f"{stage} onnxruntime int8": 5.0 for stage in faster})
        record, _ = build(capsys, path, *asked)
        assert places(record)["second"] == f"onnxruntime {'int8' if lacking is None else 'fp32'}"
        with dyninfer.load(path, backend="auto") as detector:
            made_by = detector.manifest.stages["first"].outputs
            maps[lacking] = {s.name for s in made_by if s.dtype == "uint8"}
            read = {s.name for s in detector.manifest.stages["second"].inputs}
            found = detector(sorted(pictures.iterdir()), policy=dyninfer.AlwaysHard())
            assert {d.exit_index for d in found} == {1}
    assert len(maps[None]) == 2
    assert maps["second"] == maps[None] - read


def test_nothing_stays_where_every_mix_is_refused(capsys, tmp_path, monkeypatch, pictures) -> None:
    only_onnx_runtime(monkeypatch)
    path = frail.write_static(tmp_path / "s.dyn", "loses digits")
    made = ("build", str(path), "--backend", "onnxruntime", "-p", "int8", "-i", str(pictures))
    assert run(capsys, *made)[0] == 0
    measure_as(monkeypatch, {"body onnxruntime int8": 1.0})
    builds = builds_in(path)
    record, err = build(capsys, path, "-i", str(pictures))
    assert "falls back to its next fastest candidate: on onnxruntime in int8" in err
    assert {place.split()[1] for place in places(record).values()} == {"fp32"}
    assert builds_in(path) == builds


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-p", "int8"], "--precision does not go with --backend auto"),
        (["--input", "uint8"], "--input does not go with --backend auto"),
        (["--for", "rtx30"], "--for go with TensorRT"),
        (["--batch", "1:4:16"], "--batch is '1:4:16'"),
        (["--batch", "0"], "--batch is '0'"),
        (["--batch", "65"], "from 1 to 64"),
        (["--gate", "mAP=1"], "'mAP=1'"),
        (["--gate", "ap=0.3"], "the gate limits ap, and nothing is known of the pictures"),
        (["--no-build"], "nothing was measured yet; run: dyninfer build"),
    ],
)
def test_what_does_not_go_together_is_said(capsys, tmp_path, pictures, options, said) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    more = [] if "--no-build" in options else ["-i", str(pictures)]
    status, out, err = run(capsys, "build", str(path), "--backend", "auto", *more, *options)
    assert status
    assert not out
    assert said in " ".join(err.split())
    assert not (path / "engines" / "auto.json").exists()


def test_a_misspelt_backend_is_refused_with_its_names(capsys, tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    status, _, err = run(capsys, "build", str(path), "--backend", "atuo")
    assert status == 2
    assert "'atuo'" in err
    assert "'auto'" in err
    status, _, err = run(capsys, "predict", str(path), "x.png", "--backend", "auto")
    assert status == 1
    assert f"run: dyninfer build {path} --backend auto" in " ".join(err.split()) or "x.png" in err
