from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dyninfer.search.cost import cost_of
from dyninfer.search.structure import Block, checked
from tests.dyninfer.cli.run import run, write_picture
from tests.exporters.zendet.test_export import UNEVEN
from tests.support import ROOT

NARROW = ROOT / "tests/vectors/zendet-narrow.txt"
QUICK = ("--quick", "--seconds", "0.05", "--rounds", "2", "--batch", "1", "--against", "none")
SHALLOW = [
    Block(3, 8, 3, 2),
    Block(8, 16, 3, 2, 1, 8),
    Block(16, 24, 5, 2, 2, 8),
    Block(24, 40, 3, 2, 1, 16),
    Block(40, 48, 3, 2, 2, 16),
]


def test_a_searched_backbone_exports_with_random_weights_and_runs(
    capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("found.txt").write_text(checked(UNEVEN).text)
    arguments = ("--structure", "found.txt", "--image-size", "64x96")
    status, out, err = run(capsys, "export", "zendet", *arguments)
    assert (status, err) == (0, "")
    assert "weights: random, for work on latency" in out
    assert "verification passed" in out
    assert "settings: structure {'best_structures':" in out
    assert "classes" not in out
    assert out.endswith("next: dyninfer bench found.dyn\n")
    assert max(map(len, out.splitlines())) <= 100
    stage = json.loads(Path("found.dyn/bundle.json").read_text())["stages"]["body"]
    cost = cost_of(checked(UNEVEN), (64, 96))
    assert (stage["parameters"], stage["macs"]) == (cost.parameters, cost.macs)
    write_picture(tmp_path / "street.jpg", 60, 80)
    half = ("--backend", "onnxruntime", "--precision", "fp16", "--images", "street.jpg")
    status, out, _ = run(capsys, "build", "found.dyn", *half)
    assert status == 0
    assert "Against fp32, on 1 picture\nexit  maps differ by\n" in out
    assert not {"detections", "boxes", "AP"} & set(out.split())
    status, _, err = run(capsys, "build", "found.dyn", *half, "--gate", "differ=0%", "--force")
    assert status == 1
    assert re.search(r"the maps differ by 0\.\d+% at exit 0\n", err)
    for command in (("predict",), ("eval", "--images"), ("calibrate", "--images")):
        status, out, err = run(capsys, command[0], "found.dyn", *command[1:], "street.jpg")
        assert (status, out) == (1, ""), command
        assert "a backbone" in err.splitlines()[-1]


@pytest.mark.slow
def test_two_structures_become_a_cascade_that_everything_takes(
    capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("first.txt").write_text(checked(UNEVEN).text)
    Path("second.txt").write_text(checked(SHALLOW).text)
    pair = ("--structure", "first.txt", "--second-structure", "second.txt")
    status, out, err = run(capsys, "export", "zendet", *pair, "--image-size", "64x96")
    assert (status, err) == (0, "")
    assert "weights: random, for work on latency" in out
    assert "verification passed" in out
    assert out.endswith("next: dyninfer predict first-second.dyn IMAGE_OR_FOLDER\n")
    manifest = json.loads(Path("first-second.dyn/bundle.json").read_text())
    assert list(manifest["stages"]) == ["first", "router", "head", "second"]
    assert manifest["settings"]["weights"] == "random"
    assert [entry["file_name"] for entry in manifest["further_sources"]] == ["second.txt"]
    first = cost_of(checked(UNEVEN), (64, 96))
    assert manifest["stages"]["first"]["parameters"] == first.parameters
    assert manifest["stages"]["first"]["macs"] == first.macs
    Path("seen").mkdir()
    for number in range(3):
        write_picture(Path("seen", f"street{number}.jpg"), 60, 80 + number)
    for command, arguments in (
        ("calibrate", ("first-second.dyn", "--images", "seen")),
        ("predict", ("first-second.dyn", "seen", "--speed", "50%", "--no-images")),
    ):
        status, out, err = run(capsys, command, *arguments)
        assert status == 0
        assert "warning: the weights of first-second are random: what it finds means" in err
    status, out, _ = run(capsys, "bench", "first-second.dyn", *QUICK)
    assert status == 0
    assert "second" in out
    half = ("--backend", "onnxruntime", "--precision", "fp16", "--images", "seen")
    status, out, _ = run(capsys, "build", "first-second.dyn", *half)
    assert (status, "detections differ" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (
            ("a.pth", "--structure", "{narrow}", "--second-structure", "{narrow}"),
            1,
            "a cascade of two structures has random weights, for work on latency; leave out one",
        ),
        (
            ("--structure", "{narrow}", "--second-structure", "missing.txt"),
            1,
            "missing.txt does not exist",
        ),
        (("--second-structure", "{narrow}"), 2, "there is no structure text: give --structure"),
        (("a.pth",), 2, "there is no structure text: give --structure"),
        (("--structure", "missing.txt"), 1, "missing.txt does not exist"),
    ],
    ids=["checkpoint", "no second", "no first", "none", "missing"],
)
def test_an_export_without_a_structure_says_so(capsys, arguments, status, expected) -> None:
    named = (argument.format(narrow=NARROW) for argument in arguments)
    found, _, err = run(capsys, "export", "zendet", *named)
    assert found == status
    assert expected in err.splitlines()[-1]
