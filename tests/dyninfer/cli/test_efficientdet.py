from __future__ import annotations

import json
from pathlib import Path

import pytest

from dyninfer.bundle.folder import Bundle
from tests.dyninfer.cli.run import run, table_of
from tests.exporters.efficientdet.narrow import narrow, random_model, save


@pytest.mark.slow
def test_export_checks_itself_and_says_what_it_took_from_a_name(capsys, tmp_path: Path) -> None:
    structure = narrow(native=True, cells=1, repeats=1)
    source = save(random_model(structure), tmp_path / "efficientdet_d1-mine.pth")
    target = tmp_path / "mine.dyn"
    options = ("--image-size", "64x96", "--candidates", "7", "--licence", "MIT")
    status, out, err = run(
        capsys, "export", "efficientdet", str(source), "-o", str(target), *options
    )
    assert (status, err) == (0, "")
    assert "image size, anchors and colours of efficientdet_d1" in out
    assert "verification passed" in out
    assert f"dyninfer predict {target}" in out
    manifest = Bundle.open(target).manifest
    assert manifest.source.licence == "MIT"
    assert manifest.stages["body"].outputs[0].shape == ("batch", 7, 4)
    status, out, _ = run(capsys, "verify", str(target), "--source", str(source), "--random", "1")
    assert status == 0
    assert "verification passed" in out


def test_what_weights_do_not_tell_is_asked_for(capsys, tmp_path: Path) -> None:
    source = save(random_model(narrow()), tmp_path / "mine.pth")
    target = tmp_path / "mine.dyn"
    arguments = ("export", "efficientdet", str(source), "-o", str(target))
    for options, parts in (
        ((), ("neither image size nor anchors", "--config")),
        (("--config", "d7"), ("tf_efficientdet_d7",)),
    ):
        status, out, err = run(capsys, *arguments, *options)
        assert (status, out, err.count("\n")) == (1, "", 1)
        for part in parts:
            assert part in err
    for wrong in ("0", "some", "-5", "1.5"):
        status, _, err = run(capsys, *arguments, f"--candidates={wrong}")
        assert status == 2
        assert "or all" in err
    assert not target.exists()


def test_a_checkpoint_named_without_its_family_is_told_which(capsys) -> None:
    status, _, err = run(capsys, "export", "tf_efficientdet_d0_34-f153e0cf.pth")
    assert status == 2
    assert "dyninfer export efficientdet tf_efficientdet_d0_34-f153e0cf.pth" in err


def test_compound_scale_of_a_published_size(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run(capsys, "compound-scale", "1")
    assert (status, err) == (0, "")
    assert "tf_efficientdet_d1" in out
    rows = {line[:27].strip(): line.split()[-2:] for line in table_of(out)}
    assert rows["parameters"] == ["6,625,898", "6,625,898"]
    assert rows["image size"] == ["640", "640"]
    assert max(map(len, out.splitlines())) <= 80
    document = json.loads(run(capsys, "compound-scale", "d7x", "--json")[1])
    assert "formulas" not in document
    assert document["tf_efficientdet_d7x"]["parameters"] == 77_147_166
    assert document["tf_efficientdet_d7x"]["levels"] == 6
    assert document["tf_efficientdet_d7x"]["macs"] / 1e9 == pytest.approx(407.628, rel=1e-3)


def test_compound_scale_of_any_other(capsys) -> None:
    document = json.loads(run(capsys, "compound-scale", "0.5", "--json")[1])
    assert list(document) == ["phi", "formulas"]
    assert document["formulas"]["bifpn_channels"] == 72  # 64 * 1.35 ** 0.5 = 74.4
    assert document["formulas"]["image_size"] == 640  # 576 lies between 512 and 640
    parts = document["formulas"]["macs_by_part"]
    assert sum(parts.values()) == document["formulas"]["macs"]


@pytest.mark.parametrize("phi", ["-1", "31", "nan", "inf", "x", "8x"])
def test_compound_scale_of_nothing_is_wrong_usage(capsys, phi: str) -> None:
    status, _, err = run(capsys, "compound-scale", "--", phi)
    assert status == 2
    assert "from 0 to 30" in err
