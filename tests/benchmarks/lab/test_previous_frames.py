from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dyninfer.benchmarks.lab.previous_frames import Clip, main, rows_of
from tests import support

POINT = support.at_exit(0, 1)


def test_what_each_way_of_deciding_costs() -> None:
    """A hard frame among four, which loses all at the first exit; the next one loses nothing."""
    easiness = np.array([0.9, 0.1, 0.8, 0.7] * 5, np.float32)
    rows = list(rows_of(Clip("clip", easiness, (easiness < 0.2).astype(float)), POINT))
    quarter = rows[6:12]
    own, before, *_, chance = quarter
    assert (own.hard_share, own.otherwise, own.loss) == (0.25, 0, 0)
    # the first frame is hard anyway, each other one after a hard one
    assert (before.hard_share, before.loss) == (0.3, 0.25)
    assert before.otherwise == pytest.approx(11 / 20)
    assert (chance.hard_share, chance.loss) == (0.25, 0.75 * 0.25)
    assert own.switches == pytest.approx(100 * 10 / 19)


def test_pictures_become_a_record_and_a_table(tmp_path) -> None:
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    (tmp_path / "frames").mkdir()
    for index in range(12):
        picture = np.full((8, 8, 3), 20 if index % 3 else 230, np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"{index:02d}.png"), picture)
    app, output = typer.Typer(), tmp_path / "record.json"
    app.command()(main)
    done = CliRunner().invoke(app, [str(bundle), str(tmp_path / "frames"), "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert "frames before, smoothing 0, hold 1" in done.output
    record = json.loads(output.read_text())
    assert record["command"].endswith("previous_frames two.dyn frames")
    assert {row["clip"] for row in record["rows"]} == {"frames"}
    static = support.write_static(tmp_path / "static.dyn")
    done = CliRunner().invoke(app, [str(static), str(tmp_path / "frames")])
    assert done.exit_code == 1
    assert "no cascade of two exits" in done.output
