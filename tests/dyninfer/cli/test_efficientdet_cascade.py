"""Two EfficientDet checkpoints through every command, from the export to a build."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.folder import Bundle
from tests.dyninfer.cli.run import run
from tests.dyninfer.cli.test_bench import FAST
from tests.dyninfer.evaluation.coded import SIDE, coco
from tests.exporters.efficientdet.narrow import save_whole

COUNT = 40


def is_hard(number: int) -> bool:
    return number % 5 < 3


def write_pictures(folder: Path, seed: int) -> tuple[str, ...]:
    """Plain pictures, three of five bright: of these, only exit 1 says what they show."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    names, whole = [], [[0, 0, SIDE, SIDE]]
    for number in range(COUNT):
        low = 150 if is_hard(number) else 20
        shade = rng.integers(low, low + 80)
        names.append(f"{number:02}.png")
        picture = np.full((SIDE, SIDE, 3), shade, np.uint8)
        assert cv2.imwrite(str(folder / names[-1]), picture)
    document = coco(names, [whole] * COUNT)
    for number, annotation in enumerate(document["annotations"]):
        annotation |= {"id": number + 1, "category_id": 1 if is_hard(number) else 2}
    (folder / "labels.json").write_text(json.dumps(document))
    return ("--images", str(folder), "--annotations", str(folder / "labels.json"))


@pytest.mark.slow
def test_a_pair_of_checkpoints_through_every_command(
    capsys, monkeypatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Exit 0 finds the whole of any picture as ``right``, exit 1 as ``left``."""
    monkeypatch.chdir(tmp_path)
    for label, name in ((1, "tf_efficientdet_d0-right.pth"), (0, "mine.pth")):
        save_whole(tmp_path / name, label)
    Path("names.txt").write_text("left\nright\n")
    seen, others = (write_pictures(tmp_path / name, seed) for seed, name in enumerate("ab"))

    def done(*arguments: str) -> str:
        status, out, err = run(capsys, *arguments)
        assert status == 0, err
        return out

    options = ("--first", "tf_efficientdet_d0-right.pth", "--second", "mine.pth")
    for ordinal in ("first", "second"):
        options += (f"--{ordinal}-image-size", "8", f"--{ordinal}-class-names", "names.txt")
    asked = run(capsys, "export", "cascade", *options, "-o", "pair.dyn")
    assert (asked[0], asked[1], asked[2].count("\n")) == (1, "", 1)
    assert "config (--second-config)" in asked[2]
    options += ("--second-config", "tf_efficientdet_d0_ap", "--licence", "MIT")
    out = done("export", "cascade", *options, "-o", "pair.dyn")
    for part in ("verification passed", "mine.pth: image size", "next: dyninfer fit-router pair"):
        assert part in out
    out = done("fit-router", "pair.dyn", *seen, "--augment", "0", "--seeds", "3")
    assert "fitted router" in out
    assert "next: dyninfer calibrate pair-routed.dyn" in out
    assert "not compared" in done("verify", "pair-routed.dyn", "--random", "1")
    assert "AP50" in done("calibrate", "pair-routed.dyn", *others)
    figures = json.loads(done("eval", "pair-routed.dyn", *others, "--speed", "60%", "--json"))
    assert figures["exit_shares"] == [0.4, 0.6]
    assert figures["precision"]["ap50"] == pytest.approx(1)
    for speed in ("easy", "hard"):
        one = json.loads(done("eval", "pair-routed.dyn", *others, "--speed", speed, "--json"))
        assert one["precision"]["ap50"] < 0.8
    with dyninfer.load("pair-routed.dyn") as detector:
        detector.policy = dyninfer.HardFraction(0.6)
        found = detector([f"b/{number:02}.png" for number in (0, 3, 6, 9)])
        assert [each.exit_index for each in found] == [1, 0, 1, 0]
        assert [each.class_names[0] for each in found] == ["left", "right", "left", "right"]
        np.testing.assert_allclose(found[0].boxes_xyxy[0], [0, 0, SIDE, SIDE], atol=1e-3)
    assert "exit 1" in done("predict", "pair-routed.dyn", "b/00.png", "b/01.png", "-o", "drawn")
    assert "first + router + first_head" in done("info", "pair-routed.dyn")
    status, out, err = run(capsys, "bench", "pair.dyn", "--quick", *FAST, "--against", "none")
    assert status == 0, err
    assert "100 % hard" in out
    request.getfixturevalue("needs_rtx")
    build = ("--backend", "tensorrt-rtx", "--for", "rtx30", "--json")
    built = json.loads(done("build", "pair-routed.dyn", *build))["stages"]
    assert set(built) == set(Bundle.open(Path("pair-routed.dyn")).manifest.stages)
