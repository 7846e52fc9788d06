"""``dyninfer bench`` of every kind of route, from the command line to the report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dyninfer.benchmarks.latency.pictures import synthetic_pictures
from dyninfer.benchmarks.latency.record import SCHEMA_VERSION, BenchRecord
from dyninfer.benchmarks.latency.record_file import read_record, write_record
from dyninfer.benchmarks.latency.request import BenchRequest, Effort
from dyninfer.benchmarks.latency.scenarios import Choices
from dyninfer.benchmarks.latency.take import take_record
from dyninfer.errors import InputError
from dyninfer.runtime.engine_choice import EngineChoice
from tests import support
from tests.dyninfer.cli.run import run

# contenders of a test need not wait for each other's threads to sleep
IMPATIENT = """
from types import SimpleNamespace
from dyninfer.benchmarks.baselines import contest
from dyninfer.cli.app import main
contest.time = SimpleNamespace(sleep=lambda _seconds: None)
main()
"""
FAST = ["--quick", "--seconds", "0.05", "--rounds", "2", "--min-calls", "4", "--batch", "1,2"]


@dataclass(frozen=True)
class Case:
    write: Callable[[Path], Path]
    ways: tuple[str, ...]
    scenarios: tuple[str, ...]


CASES = {
    "static": Case(support.write_static_two_stages, ("exit 0",), ("exit 0",)),
    "three": Case(
        support.write_three_exits,
        ("exit 0", "exit 1", "exit 2"),
        ("0 % hard", "exit 1", "50 % hard", "100 % hard"),
    ),
    "classifiers": Case(
        support.write_dear_first,
        ("branch 0", "branch 1"),
        ("branch 0", "branch 1", "as routed"),
    ),
    "detectors": Case(
        support.write_select_detectors,
        ("branch 0", "branch 1"),
        ("branch 0", "branch 1", "as routed"),
    ),
}


@pytest.fixture(scope="module", params=CASES)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Case, Path]:
    """A case, and the folder with its bundle, record and report."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    bundle = case.write(folder / "some.dyn")
    command = [sys.executable, "-c", IMPATIENT, "bench", str(bundle), *FAST]
    command += ["--synthetic", "16x24", "--against", "always-last-exit,naive,single-graph-if"]
    command += ["--output", str(folder / "record.json"), "--report", str(folder / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "shown.txt").write_text(done.stdout, encoding="utf-8")
    return case, folder


@pytest.fixture(scope="module")
def record(measured: tuple[Case, Path]) -> BenchRecord:
    return read_record(measured[1] / "record.json")


def test_every_way_is_measured_and_takes_all_the_images(
    measured: tuple[Case, Path], record: BenchRecord
) -> None:
    case, _ = measured
    assert record.measured.ways == case.ways
    names = [f"batch {batch}, {name}" for batch in (1, 2) for name in case.scenarios]
    assert [result.scenario.name for result in record.scenarios] == names
    reached = {
        entry.exit_index
        for result in record.scenarios
        if not result.scenario.as_routed
        for entry in result.exits
        if entry.share == 1 and entry.latency is not None
    }
    assert reached == set(range(len(case.ways)))
    if case.write is support.write_dear_first:
        hard = [r.hard_fraction for r in record.scenarios if r.scenario.way]
        assert hard == [1, 0] * 2
        assert record.measured.easiest == "branch 1"


def test_deciders_run_in_every_scenario(record: BenchRecord) -> None:
    decides = {s.name for s in record.measured.stages if s.role.split()[0] == "chooser"}
    for result in record.scenarios:
        ran = {span.name for span in result.spans if span.share == 1}
        assert decides <= ran


def test_baselines_are_compared_on_every_way(
    measured: tuple[Case, Path], record: BenchRecord
) -> None:
    case, _ = measured
    assert record.baselines is not None
    assert record.baselines.unavailable == {}
    for name in ("always-last-exit", "naive", "single-graph-if"):
        sides = [r.side for r in record.baselines.ratios if r.baseline == name]
        assert sides == list(case.ways)


def test_ways_are_mixed_only_where_there_are_several(
    measured: tuple[Case, Path], record: BenchRecord
) -> None:
    assert record.model is not None
    several = len(measured[0].ways) > 1
    assert bool(record.model.break_even_by_batch) == several
    assert (record.model.break_even is not None) == several


def test_tables_report_and_markdown_name_the_ways(
    capsys: pytest.CaptureFixture[str], measured: tuple[Case, Path]
) -> None:
    case, folder = measured
    shown = (folder / "shown.txt").read_text(encoding="utf-8")
    report = (folder / "report.html").read_text(encoding="utf-8")
    record = folder / "record.json"
    status, markdown, _ = run(capsys, "bench", "--from", str(record), "--format", "markdown")
    assert status == 0
    for text in (shown, report, markdown):
        assert all(way in text for way in case.ways)
    status, out, _ = run(capsys, "bench", "--compare", str(record), str(record))
    assert status == 0
    assert "slower" not in out.replace("is slower", "")


@pytest.mark.parametrize("case", ["classifiers", "detectors"])
def test_shares_of_branches_can_be_asked_for(case: str, tmp_path: Path) -> None:
    bundle = CASES[case].write(tmp_path / "some.dyn")
    request = BenchRequest(
        command="",
        bundle=bundle,
        engine=EngineChoice(),
        pictures=synthetic_pictures(16, 24),
        choices=Choices((2,), (0.5,)),
        effort=Effort(0.02, 2, 4, 0.05, 0.1),
    )
    half, routed = take_record(request).scenarios
    assert half.hard_fraction == 0.5
    assert [entry.share for entry in half.exits] == [0.5, 0.5]
    assert routed.scenario.as_routed


RESULTS = support.ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("name", ["bench-dy-digits.json", "bench-dy-yolov7-640.json"])
def test_committed_records_load_compare_and_render(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    old = RESULTS / name
    record = read_record(old)
    assert record.schema_version == SCHEMA_VERSION
    assert record.baselines is not None
    assert {entry.side for entry in record.baselines.ratios} == {"exit 0", "exit 1"}
    write_record(record, tmp_path / "new.json")
    assert read_record(tmp_path / "new.json") == record
    status, _, err = run(capsys, "bench", "--compare", str(old), str(tmp_path / "new.json"))
    assert (status, err) == (0, "")
    report = tmp_path / "report.html"
    status, out, _ = run(
        capsys, "bench", "--from", str(old), "--report", str(report), "--format", "markdown"
    )
    assert status == 0
    assert "exit 0" in out
    assert report.stat().st_size > 10_000


def test_a_record_of_an_older_dyninfer_is_to_be_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text('{"schema_version": 1}')
    with support.refuses(InputError, str(path), "older dyninfer", "measure again"):
        read_record(path)


def test_the_page_calls_ways_by_what_they_are(measured: tuple[Case, Path]) -> None:
    case, folder = measured
    kind = "branches" if case.ways[0].startswith("branch") else "exit"
    assert f"tiny, {len(case.ways)} {kind}" in (folder / "report.html").read_text(encoding="utf-8")
