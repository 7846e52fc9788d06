from __future__ import annotations

import json
from pathlib import Path

import pytest

from dyninfer.search.cost import cost_of
from dyninfer.search.structure import checked
from tests.dyninfer.cli.run import run, write_picture
from tests.exporters.zendet.test_export import UNEVEN


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
    assert "Against fp32, on 1 picture" in out
    for command in (("predict",), ("eval", "--images"), ("calibrate", "--images")):
        status, out, err = run(capsys, command[0], "found.dyn", *command[1:], "street.jpg")
        assert (status, out) == (1, ""), command
        assert "a backbone" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("a.pth",), 2, "there is no structure text: give --structure"),
        (("--structure", "missing.txt"), 1, "missing.txt does not exist"),
    ],
    ids=["none", "missing"],
)
def test_an_export_without_a_structure_says_so(capsys, arguments, status, expected) -> None:
    found, _, err = run(capsys, "export", "zendet", *arguments)
    assert found == status
    assert expected in err.splitlines()[-1]
