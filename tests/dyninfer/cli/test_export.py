from __future__ import annotations

from pathlib import Path

import pytest

from dyninfer.bundle.folder import Bundle
from tests import support
from tests.dyninfer.cli.run import run


def test_export_checks_itself_and_says_what_to_do_next(
    capsys: pytest.CaptureFixture[str], small_checkpoint: Path, small_yaml: Path, tmp_path: Path
) -> None:
    target = tmp_path / "mine.dyn"
    status, out, _ = run(
        capsys,
        *("export", "dynamicdet", str(small_checkpoint), "-o", str(target)),
        *("--config", str(small_yaml), "--imgsz", "64x96", "--licence", "MIT"),
    )
    assert status == 0
    assert "verification passed" in out
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
