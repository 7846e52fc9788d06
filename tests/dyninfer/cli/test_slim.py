from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dyninfer.errors import DyninferError
from dyninfer.exporters.slim.stopwatch import Latency, Stopwatch
from dyninfer.exporters.zendet.backbone import random_backbone
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.search.structure import read_structure
from tests.dyninfer.cli.run import run
from tests.exporters.slim.conftest import NAMES, STRUCTURE, labelled, tiny_detector

__all__ = ["labelled"]
TO_HALF = ("--target-latency", "0.5")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": tiny_detector().state_dict()}, "base.pt")
    Path("base.txt").write_text(STRUCTURE.text)
    Path("names.txt").write_text("\n".join(NAMES))
    return Path("base.pt")


def slim(capsys: pytest.CaptureFixture[str], labelled: Path, *more: str) -> tuple[int, str, str]:
    given = ("--data", str(labelled), "--class-names", "names.txt", "--image-size", "64")
    return run(capsys, "slim", "base.pt", *given, "--steps", "40", "--threads", "1", *more)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One student, timed by its parameters: what engines take is not for tests to decide."""
    monkeypatch.setattr("dyninfer.exporters.slim.search.STUDENTS", 1)
    monkeypatch.setattr("dyninfer.exporters.slim.search.BATCH", 2)
    monkeypatch.setattr("dyninfer.exporters.slim.elastic.POOL", 2)
    timed = Stopwatch._beside_base

    def by_parameters(stopwatch: Stopwatch, detector, rounds: int) -> Latency:
        found = timed(stopwatch, detector, 2)
        sizes = [each.manifest.stages["body"].parameters for each in (detector, stopwatch.base)]
        estimate = type(found.ratio)(*[sizes[0] / sizes[1]] * 3, 0.95, rounds)
        return Latency(found.ms, found.base_ms, estimate)

    monkeypatch.setattr(Stopwatch, "_beside_base", by_parameters)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_student_is_found_and_exports(capsys, base: Path, labelled: Path) -> None:
    status, out, err = slim(capsys, labelled, "--target-latency", "0.98", "-o", "small.pt")
    assert (status, "warning" in err) == (0, False)
    assert re.search(r"^the student takes 0\.\d\d .* of the base's time", out, re.MULTILINE)
    command = out.splitlines()[-1].removeprefix("next: dyninfer ")
    assert command == (
        "export zendet small.pt --structure small.txt --image-size 64x64 --class-names names.txt "
        "-o small.dyn"
    )
    assert Path("small.txt").read_text() != base.with_suffix(".txt").read_text()
    status, out, _ = run(capsys, *command.split())
    assert status == 0
    assert "verification passed" in out
    status, _, err = slim(capsys, labelled, *TO_HALF, "-o", "small.pt")
    assert status == 1
    assert err == "error: small.pt exists: choose another --output, or give --overwrite\n"


@pytest.mark.usefixtures("base")
def test_ctrl_c_keeps_the_best_so_far(capsys, labelled: Path, monkeypatch) -> None:
    class Interrupted:
        """A search that is stopped after its first student within the target."""

        def __init__(self, *given: Any) -> None:
            self.keep = given[-1]

        def run(self) -> None:
            student = ZenDetStudent.of(tiny_detector(seed=1))
            self.keep(SimpleNamespace(student=student))
            raise KeyboardInterrupt

    monkeypatch.setattr("dyninfer.cli.slim._opened", lambda *_: nullcontext())
    monkeypatch.setattr("dyninfer.exporters.slim.search.Search", Interrupted)
    status, _, err = slim(capsys, labelled, *TO_HALF)
    assert status == 130
    assert err == "stopped: the best student so far is in student.pt\ninterrupted\n"
    kept = ZenDetStudent.load(Path("student.pt"), read_structure(Path("student.txt")))
    expected = tiny_detector(seed=1).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in kept.state.items())


@pytest.mark.parametrize("target", ["0", "1", "1.5", "100%", "0ms", "-3ms", "fast", "8 m", "nan"])
def test_targets_that_are_none(capsys, labelled: Path, target: str) -> None:
    status, _, err = slim(capsys, labelled, f"--target-latency={target}")
    assert status == 2
    assert f"--target-latency is {target!r}, expected a share of the base's time" in err


@pytest.mark.usefixtures("base")
def test_what_cannot_be_slimmed(capsys, labelled: Path) -> None:
    def error(*more: str, needs: int = 1) -> str:
        status, _, err = slim(capsys, labelled, *TO_HALF, *more)
        assert status == needs
        return err.splitlines()[-1]

    assert "give one of --minutes and --steps" in error("--minutes", "3", needs=2)
    assert error("-o", "base.pt") == "error: base.pt is the base's own: choose another --output"
    assert error("-o", "x.txt").startswith("error: the output is x.txt, expected a checkpoint's")
    assert "there is no folder nowhere" in error("-o", "nowhere/x.pt")
    assert "the structure text missing.txt does not exist" in error("--structure", "missing.txt")
    Path("many.txt").write_text("a\nb\nc")
    assert "many.txt holds 3 class names" in error("--class-names", "many.txt")
    assert "none.json" in error("--annotations", "none.json")
    assert "expected multiples of 32" in error("--image-size", "65")
    torch.save(random_backbone(STRUCTURE, 0).state_dict(), "base.pt")
    assert "base.pt is a backbone alone, expected a whole GFLV2 detector" in error()
    torch.save({"backbone.conv1.weight": torch.zeros(8, 3, 3, 3)}, "base.pt")
    assert "base.pt is not a ZenDet checkpoint" in error()


@pytest.mark.usefixtures("base")
def test_too_few_pictures(capsys, labelled: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("00.png", "annotations.json"):
        (few / name).write_bytes((labelled / name).read_bytes())
    status, _, err = slim(capsys, few, *TO_HALF)
    assert status == 1
    assert "there is 1 picture with labels, expected at least 10" in err


@pytest.mark.usefixtures("base")
def test_without_torch_or_the_evaluation(capsys, labelled: Path, monkeypatch) -> None:
    def missing(*_: object) -> None:
        raise DyninferError("average precision needs faster-coco-eval")

    monkeypatch.setattr("dyninfer.cli.slim.average_precision", missing)
    assert "needs faster-coco-eval" in slim(capsys, labelled, *TO_HALF)[2]
    monkeypatch.setattr("dyninfer.exporters.extras.find_spec", lambda _: None)
    assert "error: dyninfer slim needs torch" in slim(capsys, labelled, *TO_HALF)[2]
