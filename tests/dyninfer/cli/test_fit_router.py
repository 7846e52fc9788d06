from __future__ import annotations

import json
from pathlib import Path

import pytest

import dyninfer
from dyninfer.bundle.documents import load_sealed
from tests import support
from tests.dyninfer.cli.run import run
from tests.exporters.router import cascades

QUICK = ("--augment", "1", "--seeds", "2")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return cascades.write_learnable(tmp_path / "pair.dyn")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return cascades.write_pictures(tmp_path / "pictures", 20)


def fit(capsys, bundle: Path, pictures: Path, *more: str) -> tuple[int, str, str]:
    images = ("--images", str(pictures))
    return run(capsys, "fit-router", str(bundle), *images, *QUICK, *more)


def test_a_router_is_fitted_compared_and_written_beside_the_bundle(capsys, bundle, pictures):
    before = support.files_below(bundle)
    labels = ("--annotations", str(pictures / "labels.json"))
    code, out, err = fit(capsys, bundle, pictures, *labels)
    assert (code, err) == (0, "")
    for word in ("fitted router", "random", "maximum confidence", "oracle", "above random by"):
        assert word in out
    rows = [line.split() for line in out.splitlines()]
    assert [row[1] for row in rows if row[:1] in (["0%"], ["100%"])] == ["none", "all"]
    routed = bundle.with_name("pair-routed.dyn")
    assert f"next: dyninfer calibrate {routed} --images OTHERS" in out
    assert all(len(line) <= 80 for line in out.splitlines() if line[:1] in "┏┃┡│└")
    assert support.files_below(bundle) == before
    with dyninfer.load(routed) as detector:
        assert detector.manifest.name == "pair-routed"
        assert detector.manifest.routed


def test_json_is_the_record_that_lies_in_the_bundle(capsys, bundle, pictures, tmp_path):
    target = tmp_path / "new.dyn"
    code, out, _ = fit(capsys, bundle, pictures, "--json", "-o", str(target))
    assert code == 0
    record = json.loads(out)
    assert record.pop("bundle") == str(target)
    assert record == load_sealed(target / "router.json")
    assert record["truth"] == "agreement with the last exit"
    assert (record["augment"], record["seeds"], record["folds"]) == (1, 2, 5)


def test_an_existing_bundle_is_replaced_only_when_asked_to(capsys, bundle, pictures):
    assert fit(capsys, bundle, pictures)[0] == 0
    code, out, err = fit(capsys, bundle, pictures)
    assert (code, out) == (1, "")
    assert "--overwrite" in err
    assert fit(capsys, bundle, pictures, "--overwrite")[0] == 0


def test_the_bundle_itself_is_never_the_target(capsys, bundle, pictures):
    before = support.files_below(bundle)
    code, _, err = fit(capsys, bundle, pictures, "-o", str(bundle), "--overwrite")
    assert code == 1
    assert "never changes it" in err
    assert support.files_below(bundle) == before


def test_a_useless_router_is_refused_after_its_table_and_nothing_is_written(
    capsys, bundle, tmp_path
):
    folder = cascades.write_pictures(tmp_path / "noise", 40, seed=1, told=False)
    labels = ("--annotations", str(folder / "labels.json"), "--augment", "0", "--seeds", "5")
    code, out, err = fit(capsys, bundle, folder, *labels)
    assert code == 1
    assert "fitted router" in out
    assert err.count("\n") == 1
    assert "no better than random choice" in err
    assert "nothing was written" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise", "pair.dyn"]


def test_a_last_exit_that_is_worse_is_told(capsys, tmp_path, pictures):
    # the last exit reads nothing: of any class, everywhere
    worse = cascades.write_learnable(tmp_path / "pair.dyn", second=((2, 2), (0, 0), (0.5, 0.5)))
    _, _, err = fit(capsys, worse, pictures, "--annotations", str(pictures / "labels.json"))
    assert "the last exit is no better here: a cascade costs accuracy (AP " in err


def test_twins_have_nothing_to_learn(capsys, tmp_path, pictures):
    twins = cascades.write_learnable(tmp_path / "twins.dyn", second=cascades.FIRST)
    code, _, err = fit(capsys, twins, pictures)
    assert code == 1
    assert "nothing to learn" in err
    assert not (tmp_path / "twins-routed.dyn").exists()


def test_an_empty_folder_and_a_single_picture_are_refused(capsys, bundle, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = fit(capsys, bundle, tmp_path / "empty")
    assert code == 1
    assert "holds no pictures" in err
    code, _, err = fit(capsys, bundle, pictures / "000.png")
    assert code == 1
    assert "1 picture given, expected at least 10" in err


def test_labels_of_other_pictures_are_refused(capsys, bundle, pictures, tmp_path):
    labels = json.loads((pictures / "labels.json").read_text(encoding="utf-8"))
    for image in labels["images"]:
        image["file_name"] = "other-" + image["file_name"]
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(labels), encoding="utf-8")
    code, _, err = fit(capsys, bundle, pictures, "--annotations", str(wrong))
    assert code == 1
    assert "none of the pictures (20)" in err


def test_a_static_bundle_is_refused(capsys, tmp_path, pictures):
    static = support.write_static(tmp_path / "one.dyn")
    code, _, err = fit(capsys, static, pictures)
    assert code == 1
    assert "single exit" in err


def test_help_shows_an_example(capsys):
    code, out, _ = run(capsys, "fit-router", "--help")
    assert code == 0
    assert "dyninfer fit-router pair.dyn" in " ".join(out.split())


def test_unknown_features_are_wrong_usage(capsys, bundle, pictures):
    assert fit(capsys, bundle, pictures, "--features", "colours")[0] == 2


def test_a_picture_that_cannot_be_read_is_left_out_with_a_warning(capsys, bundle, pictures):
    (pictures / "broken.png").write_bytes(b"no picture")
    code, out, err = fit(capsys, bundle, pictures)
    assert code == 0
    assert err.startswith("warning: left out, unreadable: 1 picture: ")
    assert "broken.png" in err
    assert "20 pictures" in " ".join(out.split())
