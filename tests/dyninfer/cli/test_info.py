from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dyninfer.bundle.folder import Bundle
from tests.dyninfer.cli.run import run, table_of


@pytest.mark.parametrize("columns", ["80", "200"])
def test_tables_fit_the_terminal(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small_bundle: Path,
    columns: str,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    status, out, _ = run(capsys, "info", str(small_bundle))
    assert status == 0
    table = table_of(out)
    assert max(map(len, table)) <= int(columns)
    for stage in ("first", "router", "head", "second"):
        assert any(line.startswith(f"{stage} ") for line in table)


def test_json_is_the_manifest_and_the_parity(
    capsys: pytest.CaptureFixture[str], small_bundle: Path
) -> None:
    status, out, _ = run(capsys, "info", str(small_bundle), "--json")
    document = json.loads(out)
    assert status == 0
    assert document["parity"] is None
    manifest = Bundle.open(small_bundle).manifest
    assert document["stages"]["first"]["macs"] == manifest.stages["first"].macs
    assert document["route"]["kind"] == "cascade"


def test_a_changed_bundle_is_refused(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.dyn"
    shutil.copytree(small_bundle, changed)
    with (changed / "onnx" / "head.onnx").open("ab") as file:
        file.write(b"\0")
    status, out, err = run(capsys, "info", str(changed))
    assert (status, out) == (1, "")
    assert "head.onnx was changed" in err
