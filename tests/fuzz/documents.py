"""Calibrations and records of ``dyninfer bench``, changed and where they have a seal, sealed."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from random import Random

import dyninfer
from dyninfer.benchmarks.latency.compare import compare_records
from dyninfer.benchmarks.latency.doubts import doubts_of
from dyninfer.benchmarks.latency.record_file import read_record, write_record
from dyninfer.benchmarks.report.comparison import as_data, changes_table, lines_of
from dyninfer.benchmarks.report.documents import to_markdown, write_html
from dyninfer.benchmarks.report.table import print_page, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.benchmarks.report.view import page_of
from dyninfer.bundle.calibration import CALIBRATION_FILE
from dyninfer.bundle.folder import Bundle
from tests import support
from tests.benchmarks.report.report_records import full_record, hostile_record, three_exits_record
from tests.fuzz.bundles import PICTURES, calibrated
from tests.fuzz.mutation import mutate_bytes, mutate_json, sealed

GOALS = (
    dyninfer.HardFraction(0.3),
    dyninfer.HardFraction(0.3, adaptive=True),
    dyninfer.LatencyBudget(ms=12.0),
    dyninfer.LatencyBudget(ms=12.0, percentile=95),
    dyninfer.FramesPerSecond(30),
    dyninfer.Accuracy(0.5),
    dyninfer.CertifiedRisk(),
)


class Calibrations:
    """Read with a bundle, and asked for every goal, a monitor and a table."""

    def __init__(self, material: Path) -> None:
        writers = (support.write_two_exits, support.write_three_exits)
        bundles = [calibrated(write(material / f"{write.__name__}.dyn")) for write in writers]
        self._documents = []
        self._detectors = {}
        for bundle in bundles:
            document = json.loads((bundle / CALIBRATION_FILE).read_bytes())
            document.pop("seal")
            self._documents.append((bundle.name, document))
            self._detectors[bundle.name] = dyninfer.load(bundle)

    def make(self, rng: Random, folder: Path) -> None:
        name, document = rng.choice(self._documents)
        changed = mutate_json(rng, document)
        (folder / CALIBRATION_FILE).write_bytes(sealed(rng, changed))
        (folder / "bundle").write_text(name)

    def feed(self, folder: Path) -> None:
        detector = self._detectors[(folder / "bundle").read_text()]
        shutil.copyfile(folder / CALIBRATION_FILE, detector.bundle.path / CALIBRATION_FILE)
        Bundle.open(detector.bundle.path)
        refusal: dyninfer.DyninferError | None = None
        for goal in GOALS:
            try:
                detector(list(PICTURES), policy=goal)
            except dyninfer.DyninferError as error:  # another goal may do
                refusal = error
        try:
            detector.monitor.start(audit_share=0)
            detector(list(PICTURES))
            detector.monitor.report()
        finally:
            detector.monitor.stop()
        if refusal is not None:
            raise refusal


class Records:
    """Read, compared with another, and shown in every form."""

    def __init__(self, material: Path) -> None:
        made = (full_record(), three_exits_record(), hostile_record())
        self._documents = [json.loads(json.dumps(asdict(record))) for record in made]
        write_record(made[0], material / "other.json")
        self._other = read_record(material / "other.json")

    def make(self, rng: Random, folder: Path) -> None:
        text = json.dumps(mutate_json(rng, rng.choice(self._documents))).encode()
        data = mutate_bytes(rng, text) if rng.random() < 0.05 else text
        (folder / "record.json").write_bytes(data)

    def feed(self, folder: Path) -> None:
        record = read_record(folder / "record.json")
        terminal = Terminal()
        terminal.file = io.StringIO()
        doubts_of(record)
        print_page(page_of(record), terminal)
        to_markdown(record)
        write_html(record, folder / "report.html")
        with contextlib.suppress(dyninfer.InputError):  # of other bundles
            comparison = compare_records(self._other, record)
            print_table(changes_table(comparison), terminal)
            as_data(comparison), lines_of(comparison)
