"""``build --gate`` and ``verify --precision``, on routes of all kinds with one frail stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.exporters.cascade.export import export_onnx
from dyninfer.exporters.cascade.options import DetectorSource
from tests import support
from tests.dyninfer.cli import frail
from tests.dyninfer.cli.run import run

ORT = ("--backend", "onnxruntime")
GATE = ("--gate", "flips=1%,differ=2%")
DARK = range(2, 46, 4)  # of 255: nothing comes near to what float16 holds


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return frail.write_pictures(tmp_path / "pictures", range(10, 240, 20))


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    """Every fifth picture, which is held out, is brighter than those that ranges come from."""
    reds = [250 if n % 5 == 0 else red for n, red in enumerate(DARK)]
    return frail.write_pictures(tmp_path / "bright", reds)


def built(out: str) -> tuple[dict, dict]:
    """Precision of every stage, and what the gate says."""
    document = json.loads(out)
    assert document["fits"]
    return document["spec"]["precision"], document["gate"]


def test_an_overflow_in_float16_falls_back_to_float32(capsys, tmp_path, bright) -> None:
    bundle = frail.write_cascade(tmp_path / "c.dyn", "overflows")
    command = ("build", str(bundle), *ORT, "-p", "fp16", "-i", str(bright), "--json")

    status, out, _ = run(capsys, *command)
    assert (status, built(out)[1]) == (0, None)  # without a gate it is built, and its loss is shown
    parity = json.loads((Path(json.loads(out)["folder"]) / "parity.json").read_text())
    assert parity["exits"][0]["disagreement"] == 1
    assert parity["flips"]["router"]["flip_share"] > 0.5

    status, out, err = run(capsys, *command, *GATE)
    precision, gate = built(out)
    assert status == 0
    (line,) = [line for line in err.splitlines() if "falls back" in line]
    assert line.startswith("first falls back from fp16 to fp32: in fp16, beyond the gate flips=1%,")
    assert "value of first is not finite" in line
    assert (precision["first"], precision["second"]) == ("fp32", "fp16")
    assert gate["limits"] == {"flips": 1, "differ": 2}
    assert gate["found"] == {"flips": 0, "differ": 0}
    assert [fall["stage"] for fall in gate["fell_back"]] == ["first"]
    assert gate["pictures"] == 3

    assert json.loads(out)["new"]
    assert not json.loads(run(capsys, *command, *GATE)[1])["new"]
    with dyninfer.load(bundle, precision="fp16") as detector, dyninfer.load(bundle) as exact:
        assert detector.engine_record().precision["first"] == "fp32"
        for path in sorted(bright.glob("*.png")):
            ours, theirs = detector(path), exact(path)
            assert ours.exit_index == theirs.exit_index
            np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, atol=0.1)


def test_a_stage_falls_from_int8_by_fp16_to_fp32(capsys, tmp_path, pictures) -> None:
    bundle = frail.write_cascade(tmp_path / "c.dyn", "loses digits")
    labels = frail.write_labels(bundle, pictures)
    command = ("build", str(bundle), *ORT, "-p", "int8", "-i", str(pictures), "-a", str(labels))

    status, out, err = run(capsys, *command, "--gate", "ap=0.3,flips=1%")
    assert status == 0
    falls = [line for line in err.splitlines() if line.startswith("first falls back")]
    assert [fall.split(":")[0].split("from")[1] for fall in falls] == [
        " int8 to fp16",
        " fp16 to fp32",
    ]
    assert all("AP at exit 0 is" in fall and "decisions of router flip" in fall for fall in falls)
    assert "gate passed on 3 pictures: ap 0 of 0.3, flips 0% of 1%" in out
    assert "this build is what --precision int8 opens from now on" in out
    shown = run(capsys, "info", str(bundle))[1]
    assert "onnxruntime; fp32, int8; io int8; gate" in shown
    assert "passed: ap 0 of 0.3, flips 0% of 1%" in shown
    (listed,) = json.loads(run(capsys, "info", str(bundle), "--json")[1])["builds"]
    assert [fall["after"] for fall in listed["gate"]["fell_back"]] == ["fp16", "fp32"]
    status, out, _ = run(capsys, *command, "--gate", "ap=0.5", "--no-build")
    assert status == 0
    status, _, err = run(capsys, *command, "--gate", "differ=1%", "--no-build")
    assert status == 1
    assert "was not found within the gate differ=1%" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("write", "layers", "stage", "after"),
    [
        (frail.write_static, "loses channels", "body", "fp16"),
        (frail.write_select, "loses digits", "body_1", "fp32"),
    ],
    ids=["static", "select"],
)
def test_every_route_keeps_its_robust_stages_low(
    capsys, tmp_path, pictures, write, layers, stage, after
) -> None:
    bundle = write(tmp_path / "some.dyn", layers)
    command = ("build", str(bundle), *ORT, "-p", "int8", "-i", str(pictures), *GATE, "--json")
    status, out, _ = run(capsys, *command)
    precision, gate = built(out)
    assert status == 0
    assert precision[stage] == after
    assert {fall["stage"] for fall in gate["fell_back"]} == {stage}
    assert precision == gate["asked"] | {stage: after}


def test_maps_that_travel_in_float16_pass_a_gate(capsys, tmp_path, pictures) -> None:
    bundle = frail.write_maps(tmp_path / "m.dyn", "loses digits")
    seen = ("--precision", "fp16", "-i", str(pictures))
    for new in (True, False):
        status, out, _ = run(
            capsys, "build", str(bundle), *ORT, *seen, "--io", "fp16", *GATE, "--json"
        )
        assert (status, json.loads(out)["new"]) == (0, new)
    precision, gate = built(out)
    assert precision == gate["asked"] | {"first": "fp32"}
    assert json.loads(out)["tensors"] == {"deep": "float16"}  # what first makes is in float32
    status, out, _ = run(capsys, "verify", str(bundle), *seen)
    assert status == 0
    assert "gate flips=1%,differ=2%" in " ".join(out.split())


def test_where_nothing_lower_passes_nothing_is_built(capsys, tmp_path, pictures) -> None:
    bundle = frail.write_static(tmp_path / "s.dyn", "loses digits")
    before = support.files_below(bundle)
    command = ("build", str(bundle), *ORT, "-p", "fp16", "-i", str(pictures), *GATE)
    status, out, err = run(capsys, *command)
    assert (status, out) == (1, "")
    error = err.splitlines()[-1]
    assert error.startswith("error: nothing was built: no stage of")
    assert "body in fp16, beyond the gate flips=1%,differ=2%:" in error
    assert support.files_below(bundle) == before


def test_verify_shows_what_the_engines_lose(capsys, monkeypatch, tmp_path, pictures) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    bundle = frail.write_cascade(tmp_path / "c.dyn", "loses channels")
    labels = frail.write_labels(bundle, pictures)
    seen = ("--precision", "int8", "-i", str(pictures), "-a", str(labels))
    assert run(capsys, "verify", str(bundle), *seen)[0] == 1  # there is no build yet
    assert run(capsys, "build", str(bundle), *ORT, "-p", "int8", "-i", str(pictures))[0] == 0

    status, out, err = run(capsys, "verify", str(bundle), *seen)
    assert (status, err) == (0, "")  # without a gate, what is finite passes
    assert max(map(len, out.partition("\n\nrouter")[0].splitlines())) <= 80
    assert "first   int8  value" in out
    status, out, err = run(capsys, "verify", str(bundle), *seen, "--gate", "ap=1,flips=5%")
    assert status == 1
    assert "verification failed: 12 pictures on onnxruntime" in out
    assert err.count("\n") == 1
    assert "beyond the gate ap=1,flips=5%: AP at exit 0 is" in err
    status, out, _ = run(
        capsys, "verify", str(bundle), *seen, "--gate", "ap=100,flips=100%", "--json"
    )
    document = json.loads(out)
    assert (status, document["passed"], document["gate"]["ap"]) == (0, True, 100)
    exit_0, exit_1 = document["exits"]
    assert exit_0["ap_fp32"] == pytest.approx(1, abs=1e-3)
    assert exit_0["ap_converted"] < 0.5 < exit_1["ap_converted"]
    (kept,) = bundle.glob("engines/*/parity.json")
    assert json.loads(kept.read_text())["passed"] is True


def test_a_build_that_passed_is_verified_against_its_own_gate(capsys, tmp_path, bright) -> None:
    bundle = frail.write_static(tmp_path / "s.dyn", "is robust")
    command = ("build", str(bundle), *ORT, "-p", "int8", "-i", str(bright), *GATE)
    assert run(capsys, *command)[0] == 0
    seen = ("--precision", "int8", "-i", str(bright))
    assert "gate flips=1%,differ=2%" in run(capsys, "verify", str(bundle), *seen)[1]
    others = frail.write_pictures(tmp_path / "others", range(0, 250, 10))
    status, out, _ = run(capsys, "verify", str(bundle), "--precision", "int8", "-i", str(others))
    assert (status, "gate flips=1%,differ=2%" in out) == (0, True)


def test_a_classifier_has_a_gate_of_its_own(capsys, tmp_path) -> None:
    """Folders name the classes; a branch that does not see blue loses a third of top-1."""
    bundle = support.write_convolving_classifiers(tmp_path / "select.dyn")
    frail.write_pictures(tmp_path / "red", range(60, 240, 16))
    seen = ("-i", str(tmp_path / "red"))
    command = ("build", str(bundle), *ORT, "-p", "fp16", *seen, "--json")
    status, out, err = run(capsys, *command, "--gate", "top-1=1,differ=10%")
    assert (status, built(out)[1]["found"]) == (0, {"top-1": 0, "differ": 0})
    status, out, _ = run(capsys, "verify", str(bundle), "--precision", "fp16", *seen)
    assert status == 0
    assert "top-1" in out
    assert "gate top-1=1,differ=10%" in out
    (photo, *_) = (tmp_path / "red").rglob("*.png")
    status, out, _ = run(capsys, "verify", str(bundle), "--precision", "fp16", "-i", str(photo))
    assert status == 0
    assert "best class differs" in out
    assert not {"detections", "boxes", "AP"} & set(out.split())
    status, _, err = run(capsys, *command, "--gate", "ap=1")
    assert status == 1
    assert "expected one of top-1, flips, differ" in err


def test_a_foreign_detector_in_float16(capsys, tmp_path, pictures) -> None:
    """One file of rows (x, y, x, y, confidence, class), its layers beyond float16's digits."""
    file = frail.write_foreign(tmp_path / "foreign.onnx", "loses digits")
    bundle = tmp_path / "foreign.dyn"
    export_onnx(DetectorSource(file), bundle)
    command = ("build", str(bundle), *ORT, "-p", "fp16", "-i", str(pictures), *GATE)
    status, _, err = run(capsys, *command)
    assert status == 1
    assert "nothing was built" in err.splitlines()[-1]
    assert run(capsys, *command[:-2], "--gate", "flips=1%")[0] == 0  # nothing decides there


def test_openvino_runs_what_it_is_built_for(capsys, tmp_path, bright) -> None:
    pytest.importorskip("openvino")
    from dyninfer.engines.ov.backend import OvBackend

    bundle = frail.write_static(tmp_path / "s.dyn", "is robust")
    seen = ("-i", str(bright))
    command = ("-p", "int8", *seen, *GATE, "--json")
    assert run(capsys, "build", str(bundle), *ORT, *command)[0] == 0
    status, out, _ = run(capsys, "build", str(bundle), "--backend", "openvino", *command)
    assert status == 0
    assert json.loads(out)["new"]  # ONNX Runtime's engines have passed, not these
    assert built(out)[1]["measured_on"].startswith("openvino 2")
    again = run(capsys, "build", str(bundle), "--backend", "openvino", *command)[1]
    assert not json.loads(again)["new"]
    verify = ("verify", str(bundle), "--backend", "openvino", *seen, *GATE)
    for precision in ("int8", "bf16"):
        status, out, err = run(capsys, *verify, "--precision", precision)
        if precision == "bf16" and not OvBackend().has_bf16:
            assert status == 1
            assert "does not compute in bf16" in err
            continue
        assert status == 0
        assert "on openvino 2" in out


@pytest.mark.parametrize(
    ("more", "status", "part"),
    [
        (("--gate", "app=1"), 1, "did you mean 'ap'?"),
        (("--gate", "ap=1"), 1, "--annotations"),
        (("--gate", "flips=1%", "--source", "a.pt"), 2, "--source"),
        (("--gate", "flips=1%", "--random", "2"), 2, "--random"),
        (("--precision", "int9"), 1, "'int9'"),
        (("--backend", "cudnn"), 1, "'cudnn'"),
        (("--precision", "int8"), 1, "--backend onnxruntime --precision int8"),
    ],
)
def test_verify_refuses_in_one_line(capsys, tmp_path, pictures, more, status, part) -> None:
    bundle = frail.write_static(tmp_path / "s.dyn", "is robust")
    found, _, err = run(capsys, "verify", str(bundle), "-i", str(pictures), *more)
    assert found == status
    assert part in " ".join(err.split())
    assert status == 2 or err.count("\n") == 1


def test_a_gate_is_refused_before_the_work(capsys, tmp_path, pictures) -> None:
    bundle = frail.write_static(tmp_path / "s.dyn", "is robust")
    command = ("build", str(bundle), *ORT, "-p", "int8", "-i", str(pictures))
    for more, status, part in [
        (("--gate", "aps=1"), 1, "did you mean 'ap'?"),
        (("--gate", "ap=1"), 1, "--annotations"),
        ((*GATE, "--batch", "4:4:8"), 2, "--batch from 1 up"),
    ]:
        found, out, err = run(capsys, *command, *more)
        assert (found, out) == (status, "")
        assert part in " ".join(err.split())
        assert not (bundle / "engines").exists()
