from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import dyninfer
from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.latency.record_file import read_record, write_record
from tests import support
from tests.dyninfer.cli.run import run, table_of, write_picture

FAST = ["--seconds", "0.05", "--rounds", "2", "--min-calls", "4", "--batch", "1"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.write_two_exits(tmp_path_factory.mktemp("bundle") / "two.dyn")


@pytest.fixture(scope="module")
def measured(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Stdout, stderr and the record of an ordinary run."""
    path = tmp_path_factory.mktemp("out") / "record.json"
    command = [sys.executable, "-m", "dyninfer", "bench", str(bundle), "--quick", *FAST]
    command += ["--batch", "1,2", "--hard", "0,50%", "--synthetic", "16x24", "--rate", "100"]
    done = subprocess.run(
        [*command, "--output", str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80", "PATH": "/usr/bin:/bin"},
    )
    return done.stdout, done.stderr, path


def test_tables_show_latency_steps_and_what_is_missing(measured: tuple[str, str, Path]) -> None:
    out, err, _ = measured
    assert "two.dyn" in out
    for word in ("p99.9", "images/s", "second", "postprocess", "sum", "not measured: curve"):
        assert word in out
    told = " ".join(out.split())
    assert "100 calls/s" in told
    assert "Latency by exit" in told
    assert "batch 1, 50 % hard 0 50.0 %" in told
    table = table_of(out)
    assert table
    assert all(len(line) <= 80 for line in table)
    assert "Traceback" not in err


def test_the_record_holds_all_scenarios_and_the_command(measured: tuple[str, str, Path]) -> None:
    record = read_record(measured[2])
    assert len(record.scenarios) == 6
    assert record.command.startswith("dyninfer bench ")
    assert "--synthetic 16x24" in record.command
    for result in record.scenarios:
        assert result.hard_fraction == pytest.approx(result.scenario.hard_fraction)


def test_a_record_is_shown_again_without_a_run(
    capsys: pytest.CaptureFixture[str], measured: tuple[str, str, Path]
) -> None:
    status, out, _ = run(capsys, "bench", "--from", str(measured[2]))
    assert status == 0
    assert "Latency of a call" in out
    status, out, _ = run(capsys, "bench", "--from", str(measured[2]), "--json")
    assert status == 0
    assert json.loads(out)["measured"]["bundle"] == "two.dyn"
    status, out, _ = run(capsys, "bench", "--from", str(measured[2]), "--format", "markdown")
    assert status == 0
    assert "| " in out


def test_a_report_is_one_file(
    capsys: pytest.CaptureFixture[str], measured: tuple[str, str, Path], tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    status, _, _ = run(capsys, "bench", "--from", str(measured[2]), "--report", str(report))
    assert status == 0
    assert "two" in report.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def slower(record: BenchRecord, factor: float) -> BenchRecord:
    """The record of code that takes ``factor`` times as long."""

    def slow(calls: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(ms * factor for ms in calls)

    scenarios = tuple(
        replace(result, rounds_ms=tuple(map(slow, ((5.0, 5.1, 5.2),) * 12)))
        for result in record.scenarios
    )
    yardstick = replace(record.yardstick, rounds_ms=(4.0,) * 12, median_ms=4.0)
    return replace(record, scenarios=scenarios, yardstick=yardstick)


def test_a_slower_record_is_status_1_and_a_verdict_but_no_error(
    capsys: pytest.CaptureFixture[str], measured: tuple[str, str, Path], tmp_path: Path
) -> None:
    record = read_record(measured[2])
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    write_record(slower(record, 1.0), old)
    write_record(slower(record, 1.5), new)
    status, out, err = run(capsys, "bench", "--compare", str(old), str(new))
    assert (status, err) == (1, "")
    assert "slower" in out
    assert "1.500" in out
    status, out, err = run(capsys, "bench", "--compare", str(old), str(old), "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["scenarios"]
    assert (told["slower"], told["machine_changed"]) == ([], False)
    assert told["outcome"] == "not slower"
    status, out, _ = run(capsys, "bench", "--compare", str(old), str(new), "--json")
    told = json.loads(out)
    assert status == 1
    assert told["slower"] == [result.scenario.name for result in record.scenarios]
    assert told["verdict"].startswith("6 of 6 scenarios slower by more than 3 %")
    assert told["outcome"] == "slower"


def test_each_kind_of_comparison_has_a_status_of_its_own(
    capsys: pytest.CaptureFixture[str], measured: tuple[str, str, Path], tmp_path: Path
) -> None:
    record = read_record(measured[2])
    files = {name: tmp_path / f"{name}.json" for name in ("old", "few", "else", "heated", "none")}
    write_record(slower(record, 1.0), files["old"])
    # two rounds cannot be told from chance
    few = slower(record, 1.02)
    cut = (replace(result, rounds_ms=result.rounds_ms[:2]) for result in few.scenarios)
    write_record(replace(few, scenarios=tuple(cut)), files["few"])
    elsewhere = replace(record.machine, cpu="another processor")
    write_record(replace(slower(record, 1.0), machine=elsewhere), files["else"])
    heated = replace(record.yardstick, rounds_ms=(6.0,) * 12, median_ms=6.0)
    write_record(replace(slower(record, 1.5), yardstick=heated), files["heated"])
    files["none"].write_text("{}")

    def compare(new: Path) -> tuple[int, str, str]:
        return run(capsys, "bench", "--compare", str(files["old"]), str(new))

    status, out, _ = compare(files["few"])
    assert (status, "more rounds" in out or "too few rounds" in out) == (4, True)
    status, out, _ = compare(files["heated"])
    assert (status, "no verdict on the code" in out) == (4, True)
    status, out, err = compare(files["else"])
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "different machines" in err
    for path, said in ((tmp_path / "missing.json", "missing.json"), (files["none"], "no record")):
        status, out, err = compare(path)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert said in err.replace("not a record", "no record")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--batch", "1,8"], "--batch"),
        (["--hard", "0"], "--hard"),
        (["--quick"], "--quick"),
        (["-i", "."], "--images"),
        (["--against", "none"], "--against"),
        (["--device", "cpu"], "--device"),
        (["--speed", "0.5"], "--speed"),
    ],
)
def test_options_of_a_measurement_are_refused_where_none_is_made(
    capsys: pytest.CaptureFixture[str],
    measured: tuple[str, str, Path],
    options: list[str],
    named: str,
) -> None:
    path = str(measured[2])
    for mode in (["--compare", path, path], ["--from", path]):
        status, out, err = run(capsys, "bench", *mode, *options)
        assert (status, out) == (2, "")
        told = " ".join(err.replace("│", " ").split())
        assert f"{named} is for a measurement" in told
        assert mode[0] in told


def test_a_comparison_writes_no_other_output(
    capsys: pytest.CaptureFixture[str], measured: tuple[str, str, Path], tmp_path: Path
) -> None:
    files = ["--compare", str(measured[2]), str(measured[2])]
    for more in (["--output", str(tmp_path / "a.json")], ["--format", "markdown"]):
        status, out, err = run(capsys, "bench", *files, *more)
        assert (status, out) == (2, "")
        assert "--compare prints tables" in err


def test_a_disk_that_is_full_does_not_cost_the_figures(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundle: Path,
    tmp_path: Path,
) -> None:
    from dyninfer.benchmarks.latency import record_file

    def full(_record: BenchRecord, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(record_file, "write_record", full)
    path = tmp_path / "record.json"
    status, out, err = run(
        capsys, "bench", str(bundle), "--quick", *FAST, "--hard", "0", "--output", str(path)
    )
    assert status == 1
    assert "Latency of a call" in out
    assert err.splitlines()[-1] == f"error: {path}: No space left on device"


def test_pictures_of_the_users_add_a_curve(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for height in (20, 24, 30):
        write_picture(folder / f"{height}.png", height, 32)
    path = tmp_path / "r.json"
    status, out, err = run(
        capsys,
        "bench",
        str(bundle),
        "--quick",
        *FAST,
        "--hard",
        "0,100%",
        "--decode",
        "--images",
        str(folder),
        "--pictures",
        "2",
        "--speed",
        "0.4",
        "--output",
        str(path),
    )
    assert status == 0, err
    record = read_record(path)
    assert record.pictures.count == 2
    assert record.pictures.curve
    assert record.measured.policy == "threshold 0.4"
    names = {result.scenario.name for result in record.scenarios}
    assert {"batch 1, as routed", "batch 1, 100 % hard, with decoding"} <= names
    assert "as routed by threshold 0.4" in " ".join(out.split())


def test_the_cheap_baseline_is_there_unless_it_is_switched_off(
    bundle: Path, tmp_path: Path
) -> None:
    from dyninfer.benchmarks.latency.request import BaselineRequest
    from dyninfer.bundle.folder import Bundle
    from dyninfer.bundle.manifest import Manifest
    from dyninfer.cli.bench_arguments import BaselineOptions, EffortOptions
    from dyninfer.cli.bench_options import choose_baselines

    cascade = Bundle.open(bundle).manifest
    static = Bundle.open(support.write_static(tmp_path / "one.dyn")).manifest

    def chosen(
        manifest: Manifest, against: str | None, *, quick: bool = False, rounds: int | None = None
    ) -> BaselineRequest:
        effort = EffortOptions(quick=quick, rounds=rounds)
        return choose_baselines(manifest, BaselineOptions(against), effort)

    assert chosen(cascade, None).names == ("always-last-exit",)
    assert chosen(cascade, None, quick=True).names == ()
    assert chosen(cascade, "none").names == ()
    assert chosen(static, None).names == ()
    assert chosen(cascade, "naive", quick=True).names == ("naive",)
    quick = chosen(cascade, "naive", quick=True)
    assert (quick.rounds, quick.memory) == (8, False)
    whole = chosen(cascade, "naive")
    assert (whole.rounds, whole.memory) == (20, True)
    assert chosen(cascade, "naive", rounds=5).rounds == 5
    assert chosen(cascade, None, rounds=5).rounds == 5
    assert chosen(cascade, "naive", quick=True, rounds=50).rounds == 8


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--hard", "25"], "write 25% or 0.25"),
        (["--hard", "250%"], "more than all"),
        (["--hard", "half"], "not a share"),
        (["--hard", "0,,1"], "empty entry"),
        (["--hard", "0.04%"], "finer than 1/1000"),
        (["--hard", "-1"], "not a share"),
        (["--batch", "0"], "from 1 up"),
        (["--batch", "1.5"], "from 1 up"),
        (["--concurrency", "two"], "--concurrency"),
        (["--rate", "0"], "calls a second"),
        (["--rate", "fast"], "calls a second"),
        (["--synthetic", "wide"], "HxW"),
        (["--against", "single-graph"], "single-graph-if"),
        (["--against", "nothing.onnx"], "nothing.onnx"),
        (["--annotations", "labels.json"], "--images"),
        (["--decode"], "--images"),
        (["--images", ".", "--synthetic", "16x16"], "one of"),
        (["--seconds", "0"], "0.05"),
        (["--rounds", "1"], "rounds"),
        (["--compare", "a", "b"], "one of BUNDLE"),
        (["--from", "a"], "one of BUNDLE"),
        (["--output", "a", "--report", "a"], "two files"),
        (["--seconds", "inf"], "86400"),
        (["--seconds", "nan"], "86400"),
        (["--batch", "99999999999999999999"], "too large"),
        (["--batch", "4097"], "expected 1 to 4096"),
        (["--synthetic", "99999x99999"], "too large"),
        (["--synthetic", "16000x16000"], "100 million pixels"),
        (["--source", "missing.pt"], "does not exist"),
        (["--json", "--format", "markdown"], "give one"),
    ],
)
def test_wrong_usage_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], bundle: Path, arguments: list[str], part: str
) -> None:
    status, out, err = run(capsys, "bench", str(bundle), *arguments)
    assert (status, out) == (2, "")
    told = " ".join(err.replace("│", " ").split())
    assert part in told


def test_neither_bundle_nor_record_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "bench", "--quick")
    assert status == 2
    assert "BUNDLE" in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--output", "missing/record.json"], "there is no folder"),
        (["--report", "."], "is a folder"),
        (["--images", "missing.png"], "does not exist"),
        (["--speed", "30%"], "calibrat"),
        (["--device", "cuda:0"], "cuda"),
        (["--against", "pytorch-eager"], "--source"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], bundle: Path, arguments: list[str], part: str
) -> None:
    status, out, err = run(capsys, "bench", str(bundle), "--quick", *arguments)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert part in err


def test_a_bundle_without_a_router_refuses_a_mixture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn", router=False)
    status, _, err = run(capsys, "bench", str(path), "--quick", "--hard", "50%")
    assert status == 1
    assert "no router" in err
    assert err.count("\n") == 1


def test_a_record_that_is_none_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("{}")
    status, _, err = run(capsys, "bench", "--from", str(path))
    assert status == 1
    assert "not a record of dyninfer bench" in err


def test_an_interruption_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundle: Path,
    tmp_path: Path,
) -> None:
    from dyninfer.benchmarks.latency import rounds

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "run_slice", interrupted)
    path = tmp_path / "record.json"
    status, out, err = run(capsys, "bench", str(bundle), "--quick", "--output", str(path))
    assert (status, out, err) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_of_the_baselines_keeps_what_was_measured_before(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundle: Path,
    tmp_path: Path,
) -> None:
    from dyninfer.benchmarks.latency import take

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(take, "run_baselines", interrupted)
    path = tmp_path / "record.json"
    status, out, err = run(
        capsys, "bench", str(bundle), *FAST, "--hard", "0", "--output", str(path)
    )
    assert status == 130
    assert "Latency of a call" in out
    assert "not measured: baselines (interrupted)" in out
    assert err.splitlines()[-1] == "interrupted"
    assert read_record(path).missing["baselines"] == "interrupted"


def test_a_source_that_nothing_uses_is_told(
    capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    from dyninfer.bundle.folder import Bundle
    from dyninfer.cli.bench_arguments import BaselineOptions
    from dyninfer.cli.bench_options import check_sources

    manifest = Bundle.open(bundle).manifest
    for against in (None, "none", "naive,always-last-exit"):
        check_sources(manifest, bundle, BaselineOptions(against, [bundle]))
        assert "--source is not used" in capsys.readouterr().err
    check_sources(
        manifest, bundle, BaselineOptions("all", [bundle])
    )  # what cannot be made is left out later
    check_sources(manifest, bundle, BaselineOptions())
    assert capsys.readouterr().err == ""


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    from dyninfer.cli.common import check_output_file

    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    for special in (pipe, Path(os.devnull)):
        with support.refuses(dyninfer.InputError, str(special), "a device or a pipe"):
            check_output_file(special)
    check_output_file(file)
    file.write_text("old")
    check_output_file(file)
    assert file.read_text() == "old"
