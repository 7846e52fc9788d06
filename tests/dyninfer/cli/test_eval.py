from __future__ import annotations

import json
from pathlib import Path

import pytest

from dyninfer.bundle.documents import dump_sealed
from dyninfer.evaluation.dataset import load_samples
from tests.dyninfer.cli.run import run, table_of
from tests.dyninfer.evaluation.coded import write_coded, write_labels
from tests.support import files_below, write_static, write_two_exits


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_two_exits(tmp_path / "two.dyn")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_coded(tmp_path / "pictures", range(0, 250, 10))
    return tmp_path / "pictures"


@pytest.fixture
def labels(pictures: Path) -> Path:
    return write_labels(pictures / "labels.json", sorted(pictures.glob("*.png")))


def evaluate(capsys, bundle: Path, labels: Path, *more: str) -> tuple[int, str, str]:
    arguments = ("--images", str(labels.parent), "--annotations", str(labels), *more)
    return run(capsys, "eval", str(bundle), *arguments)


@pytest.mark.parametrize(
    ("speed", "policy", "ap", "hard"),
    [
        (None, "threshold 0.5", None, 0.52),
        ("easy", "every image easy", 1, 0),
        ("hard", "every image hard", 0, 1),
        ("0.2", "threshold 0.2", None, 0.24),
    ],
)
def test_one_policy(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    labels: Path,
    speed: str | None,
    policy: str,
    ap: float | None,
    hard: float,
) -> None:
    more = () if speed is None else ("--speed", speed)
    status, out, err = evaluate(capsys, bundle, labels, "--json", *more)
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert document["policy"] == policy
    assert document["pictures"] == 25
    assert document["hard_fraction"] == pytest.approx(hard)
    if ap is not None:
        assert document["precision"]["ap"] == pytest.approx(ap)


def test_a_target_needs_a_calibration_and_uses_it(
    capsys: pytest.CaptureFixture[str], bundle: Path, labels: Path
) -> None:
    status, _, err = evaluate(capsys, bundle, labels, "--speed", "40%")
    assert (status, "dyninfer calibrate" in err) == (1, True)
    run(capsys, "calibrate", str(bundle), "--images", str(labels.parent))
    status, out, _ = evaluate(capsys, bundle, labels, "--speed", "40%", "--json")
    assert status == 0
    assert json.loads(out)["hard_fraction"] == pytest.approx(0.4)


@pytest.mark.parametrize("more", [(), ("--curve",)])
def test_tables_fit_80_columns(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundle: Path,
    labels: Path,
    more: tuple[str, ...],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = evaluate(capsys, bundle, labels, *more)
    assert status == 0
    assert "…" not in out
    assert len(table_of(out)) == (11 if more else 1)
    assert max(map(len, table_of(out))) <= 80


def test_the_curve_is_the_same_every_time_but_for_its_times(
    capsys: pytest.CaptureFixture[str], bundle: Path, labels: Path, tmp_path: Path
) -> None:
    def curve(name: str) -> dict:
        path = tmp_path / name
        status, out, _ = evaluate(capsys, bundle, labels, "--curve", "-o", str(path), "--json")
        assert status == 0
        document = json.loads(path.read_text())
        assert json.loads(out) == document
        for row in (*document["rows"], *document["exits"]):
            assert row.pop("mean_ms") > 0
        assert document.pop("last_exit_alone_ms") > 0
        low, high = document["routing"].pop("break_even_interval")
        assert 0 <= low <= document["routing"].pop("break_even") <= high <= 1
        document["advice"] = [line for line in document["advice"] if " ms" not in line]
        return document

    first = curve("first.json")
    assert first == curve("second.json")
    assert len(first["rows"]) == 21
    assert [exit_["ap"] for exit_ in first["exits"]] == [pytest.approx(1), 0]
    (advice,) = first["advice"]
    assert advice.startswith("the last exit is no better here: a cascade costs accuracy (AP 0.0, ")
    assert (first["rows"][0]["hard_fraction"], first["rows"][-1]["hard_fraction"]) == (0, 1)


def test_a_static_bundle_has_a_precision_and_no_curve(
    capsys: pytest.CaptureFixture[str], labels: Path, tmp_path: Path
) -> None:
    bundle = write_static(tmp_path / "static.dyn")
    status, out, _ = evaluate(capsys, bundle, labels, "--json")
    assert status == 0
    assert json.loads(out)["precision"]["ap"] == pytest.approx(1)
    status, _, err = evaluate(capsys, bundle, labels, "--curve")
    assert (status, "one exit" in err) == (1, True)


def test_speed_and_curve_exclude_each_other(
    capsys: pytest.CaptureFixture[str], bundle: Path, labels: Path
) -> None:
    status, _, err = evaluate(capsys, bundle, labels, "--speed", "easy", "--curve")
    assert (status, "--curve" in err) == (2, True)


def test_labels_of_other_pictures_leave_nothing_behind(
    capsys: pytest.CaptureFixture[str], bundle: Path, labels: Path, tmp_path: Path
) -> None:
    before = files_below(bundle)
    text = labels.read_text().replace(".png", ".jpg")
    labels.write_text(text)
    output = tmp_path / "result.json"
    status, out, err = evaluate(capsys, bundle, labels, "-o", str(output))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "none of the pictures (25)" in err
    assert not output.exists()
    assert files_below(bundle) == before


@pytest.mark.parametrize(
    ("name", "said"), [("nowhere/result.json", "there is no folder"), ("", "is a folder")]
)
def test_a_result_that_cannot_be_written_is_refused_before_the_run(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    labels: Path,
    tmp_path: Path,
    name: str,
    said: str,
) -> None:
    before = files_below(tmp_path)
    status, out, err = evaluate(capsys, bundle, labels, "-o", str(tmp_path / name))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert said in err
    assert files_below(tmp_path) == before


def test_a_target_is_shown_with_the_threshold_that_it_came_to(
    capsys: pytest.CaptureFixture[str], bundle: Path, labels: Path
) -> None:
    run(capsys, "calibrate", str(bundle), "--images", str(labels.parent))
    for speed in ("40%", "40%+adaptive"):
        _, out, _ = evaluate(capsys, bundle, labels, "--speed", speed, "--json")
        assert ": threshold 0." in json.loads(out)["policy"]


def test_a_curve_shows_each_share_once_and_tells_where_its_pictures_are_from(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    paths = write_coded(tmp_path / "three", [10, 100, 200])
    three = write_labels(tmp_path / "three" / "labels.json", paths)
    seen = load_samples(paths, None, ()).sha256()
    (bundle / "router.json").write_text(dump_sealed({"images_sha256": seen}))
    status, out, err = evaluate(capsys, bundle, three, "--curve")
    assert status == 0
    shares = [row.split()[0] for row in table_of(out)]
    assert shares == ["0.0%", "33.3%", "66.7%", "100.0%"]
    assert "fitted on these very pictures" in err


def test_zero_has_no_minus() -> None:
    from dyninfer.cli.evaluate import signed

    assert [signed(value) for value in (-0.001, 0.0, 0.126, -2)] == [
        "+0.00",
        "+0.00",
        "+0.13",
        "-2.00",
    ]
