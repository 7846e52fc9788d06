from __future__ import annotations

import json
from pathlib import Path

import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from tests import support
from tests.dyninfer.cli.run import run, write_picture

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")


def bill_of(capsys: pytest.CaptureFixture[str], bundle: Path) -> dict:
    """What ``info --bom`` prints, which keeps to the official schema."""
    # here, and not once for every process that collects tests: it takes seconds
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    status, out, err = run(capsys, "info", str(bundle), "--bom")
    assert (status, err) == (0, "")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(out) is None
    return json.loads(out)


def values(part: dict) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in part["properties"]}


def test_it_names_the_model_its_stages_and_where_its_weights_come_from(
    capsys, small_bundle
) -> None:
    manifest = Bundle.open(small_bundle).manifest
    bill = bill_of(capsys, small_bundle)
    model = bill["metadata"]["component"]
    assert (bill["specVersion"], model["type"]) == ("1.6", "machine-learning-model")
    assert model["hashes"][0]["content"] == file_sha256(small_bundle / "bundle.json")
    for part in model["components"]:
        assert part["hashes"][0]["content"] == file_sha256(small_bundle / part["name"])
    first = next(p for p in model["components"] if values(p)["dyninfer:stage"] == "first")
    assert values(first)["dyninfer:macs"] == str(manifest.stages["first"].macs)
    assert len(model["components"]) == len(manifest.stages)
    (ancestor,) = model["pedigree"]["ancestors"]
    assert ancestor["name"] == manifest.source.file_name
    assert ancestor["hashes"] == [{"alg": "SHA-256", "content": manifest.source.sha256}]
    parameters = model["modelCard"]["modelParameters"]
    assert parameters["task"] == "object-detection"
    assert parameters["inputs"] == [{"format": "images float32 (batch, 3, 64, 96)"}]
    assert "quantitativeAnalysis" not in model["modelCard"]


def test_every_kind_of_bundle_keeps_to_the_schema(capsys, tmp_path) -> None:
    for write in (
        support.write_three_exits,
        support.write_static_two_stages,
        support.write_select_detectors,
        support.write_select_classifiers,
    ):
        bill_of(capsys, write(tmp_path / f"{write.__name__}.dyn"))


def test_licences_and_sources_of_any_text_keep_to_the_schema(capsys, tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    support.reseal(
        path,
        lambda d: d["source"].update(licence="Of our own; \u202e[/]", sha256="not a hash"),
    )
    model = bill_of(capsys, path)["metadata"]["component"]
    assert model["licenses"] == [{"license": {"name": "Of our own; \u202e[/]"}}]
    assert model["pedigree"]["ancestors"][0]["hashes"] == []


def test_what_a_calibration_measured_is_in_the_model_card(capsys, tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        write_picture(tmp_path / "pictures" / f"{number}.png", 8 + number, 8)
    assert run(capsys, "calibrate", str(path), "--images", str(tmp_path / "pictures"))[0] == 0
    card = bill_of(capsys, path)["metadata"]["component"]["modelCard"]
    measured = card["quantitativeAnalysis"]["performanceMetrics"]
    agreement = [m for m in measured if m["type"] == "agreement with the hardest way"]
    assert [m["slice"] for m in agreement] == ["exit 0", "exit 1"]
    assert float(agreement[-1]["value"]) == 1


def test_two_documents_at_once_are_wrong_usage(capsys, small_bundle) -> None:
    status, out, err = run(capsys, "info", str(small_bundle), "--bom", "--json")
    assert (status, out) == (2, "")
    assert "two documents" in err
