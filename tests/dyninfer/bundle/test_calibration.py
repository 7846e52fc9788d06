from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import BundleError, PolicyError
from dyninfer.bundle.calibration import (
    SCHEMA_VERSION,
    Calibration,
    CalibrationFile,
    add_calibration,
    check_calibration,
)
from dyninfer.bundle.documents import dump_sealed, read_sealed
from dyninfer.bundle.manifest import Precision
from dyninfer.results.scores import Scores
from dyninfer.routing.goals import Accuracy
from dyninfer.routing.latency import LatencyBudget
from dyninfer.routing.policy import Threshold
from tests import support
from tests.dyninfer.calibrations import RECORD, calibration_of, choosing, spread

MOST_KEPT = 16
relaxed = settings(deadline=None)
EASINESS = st.lists(st.floats(0, 1) | st.just(math.nan), min_size=2, max_size=8)
COMMAND = "dyninfer calibrate night.dyn --images FOLDER"


def write(path: Path, payload: object) -> Path:
    path.write_text(dump_sealed(payload), encoding="utf-8")
    return path


def read_calibration(path: Path) -> Calibration:
    return read_sealed(path, Calibration, "run dyninfer calibrate again", SCHEMA_VERSION)


@pytest.fixture
def payload() -> dict:
    return calibration_of(spread(5), certified=0.5).model_dump(mode="json")


@relaxed
@given(EASINESS)
def test_what_is_written_is_read_back(tmp_path_factory, values) -> None:
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    made = calibration_of(np.array([values]))
    read = read_calibration(write(path, made.model_dump(mode="json")))
    assert read == made
    np.testing.assert_array_equal(read.easiness_array, [values])


def test_the_dearest_way_is_that_of_most_work_where_it_is_known_and_otherwise_the_last() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    priced = choosing(scores, (20, 10), ((2.0,), (1.0,)))
    unpriced = [way.model_copy(update={"mean_macs": None}) for way in priced.ways]
    assert priced.dearest == 0
    assert priced.model_copy(update={"ways": unpriced}).dearest == 1
    half = priced.model_copy(update={"ways": [priced.ways[0], unpriced[1]]})
    assert (half.macs, half.dearest) == ((), 1)
    cascade = calibration_of(spread(5))
    assert cascade.model_copy(update={"ways": priced.ways}).dearest == 1


def test_nan_is_written_as_plain_json(tmp_path) -> None:
    made = calibration_of(np.array([[0.25, math.nan]]))
    path = write(tmp_path / "c.json", made.model_dump(mode="json"))
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["easiness"] == [[0.25, None]]


def test_a_changed_file_is_refused(tmp_path, payload) -> None:
    path = write(tmp_path / "c.json", payload)
    path.write_text(path.read_text().replace("a test", "a text"))
    with support.refuses(BundleError, "c.json", "changed"):
        read_calibration(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema_version": 0}, "schema_version"),
        ({"losses": [[0.1] * 5] * 2}, "do not fit one route"),
        ({"exit_ms": [[1.0]] * 3}, "do not fit one route"),
        ({"exit_ms": [[1.0]] * 3, "losses": [[0.1] * 5] * 2}, "do not fit one route"),
        ({"ways": [{"mean_ms": 1, "agreement": 1}]}, "do not fit one route"),
        ({"ways": [{"mean_ms": 1, "agreement": 1}] * 3}, "do not fit one route"),
        (
            {
                "losses": [[0.1] * 5] * 2,
                "exit_ms": [[1.0]] * 3,
                "ways": [{"mean_ms": 1, "agreement": 1}] * 3,
            },
            "easiness and losses do not fit one cascade",
        ),
        ({"easiness": [[0.1] * 5] * 2}, "easiness and losses do not fit one cascade"),
        ({"biases": [{"mean_ms": 1, "agreement": 1, "bias": 0, "shares": []}]}, "biases do not"),
        ({"rows": []}, "rows"),
        ({"easiness": []}, "easiness"),
        ({"easiness": [[0.1, 0.2]]}, "easiness"),
        ({"losses": [[0.1] * 4]}, "losses"),
        ({"losses": [[0.1] * 4 + [1.5]]}, "losses"),
        ({"losses": []}, "route"),
        ({"exit_ms": [[1.0]]}, "exit_ms"),
        ({"ways": []}, "ways"),
        ({"exit_ms": [[1.0], []]}, "exit_ms"),
        ({"unknown": 1}, "unknown"),
        ({"last_exit_ap": 31.2}, "last_exit_ap"),
        ({"routed": {"mean_ms": 1, "agreement": 1, "scores": {"primary": 31.2}}}, "routed.scores"),
    ],
)
def test_payloads_that_fit_no_cascade_are_refused(tmp_path, payload, change, named) -> None:
    with support.refuses(BundleError, "c.json", named, "dyninfer calibrate"):
        read_calibration(write(tmp_path / "c.json", payload | change))


def test_a_table_has_two_rows_at_least_or_none(tmp_path, payload) -> None:
    path = tmp_path / "c.json"
    read = read_calibration(write(path, payload | {"rows": payload["rows"][:2]}))
    assert len(read.rows) == 2
    with support.refuses(BundleError, "rows are 1 for the easiness of 1"):
        read_calibration(write(path, payload | {"rows": payload["rows"][:1]}))
    chosen = CHOICE.model_dump(mode="json")
    with support.refuses(BundleError, "rows are 2 for the easiness of 0"):
        read_calibration(write(path, chosen | {"rows": payload["rows"][:2]}))


def test_of_an_ordinary_detector_there_is_one_way_and_no_table(tmp_path, payload) -> None:
    one = {"ways": payload["ways"][:1], "exit_ms": [[1.0]]}
    one |= {"losses": [], "easiness": [], "rows": [], "certificate": None}
    read = read_calibration(write(tmp_path / "c.json", payload | one))
    assert (len(read.ways), read.dearest, read.macs) == (1, 0, ())
    assert read.losses_array.shape == read.easiness_array.shape == (0, 5)


def test_a_missing_value_is_refused(tmp_path, payload) -> None:
    del payload["engine"]["provider"]
    with support.refuses(BundleError, "engine.provider"):
        read_calibration(write(tmp_path / "c.json", payload))


def test_a_newer_schema_says_upgrade(tmp_path, payload) -> None:
    path = write(tmp_path / "c.json", payload | {"schema_version": 3})
    with support.refuses(BundleError, "c.json", "newer dyninfer", "schema 3", "upgrade"):
        read_calibration(path)


FIRST_SCHEMA = {
    "schema_version": 1,
    "written_by": "dyninfer 0.8.0",
    "engine": RECORD.model_dump(mode="json"),
    "images": {"count": 2, "sha256": "c", "labels_sha256": "d"},
    "easiness": [[0.25, None]],
    "losses": [[0.5, 0.0]],
    "exit_ms": [[1.0, 3.0], [10.0]],
    "rows": [
        {
            "percentile": percentile,
            "threshold": threshold,
            "hard_fraction": 0.5,
            "mean_ms": 6.0,
            "ap": ap,
            "ap50": 0.5,
            "agreement": 0.75,
        }
        for percentile, threshold, ap in ((0.0, 0.0, 0.3), (100.0, 0.25, 0.39))
    ],
    "certificate": None,
    "last_exit_ap": 0.4,
    "last_exit_ap50": 0.6,
}


def test_a_calibration_of_schema_1_is_read_and_left_as_it_is(tmp_path) -> None:
    path = write(tmp_path / "c.json", FIRST_SCHEMA)
    before = path.read_bytes()
    read = read_calibration(path)
    assert path.read_bytes() == before
    assert (read.metrics, read.routed) == (("AP", "AP50"), None)
    assert [way.mean_ms for way in read.ways] == [2, 10]
    assert [way.agreement for way in read.ways] == [0.75, 1]
    assert [way.scores for way in read.ways] == [Scores(), Scores(0.4, 0.6)]
    assert [row.scores for row in read.rows] == [Scores(0.3, 0.5), Scores(0.39, 0.5)]
    np.testing.assert_array_equal(read.easiness_array, [[0.25, np.nan]])
    assert Accuracy(2).resolve(read) == Threshold(0.25)
    assert LatencyBudget(ms=6).resolve(read) == Threshold(0.25)
    # what is written next is of the present schema
    again = read_calibration(write(tmp_path / "new.json", read.model_dump(mode="json")))
    assert again == read


def test_of_schema_1_the_last_of_three_exits_has_the_precision(tmp_path) -> None:
    three = FIRST_SCHEMA | {
        "easiness": [[0.25, None], [0.5, 0.75]],
        "losses": [[0.5, 0.0], [0.25, 0.0]],
        "exit_ms": [[1.0, 3.0], [5.0], [10.0]],
    }
    read = read_calibration(write(tmp_path / "c.json", three))
    assert [way.scores for way in read.ways] == [Scores(), Scores(), Scores(0.4, 0.6)]
    assert [way.agreement for way in read.ways] == [0.75, 0.875, 1]
    np.testing.assert_array_equal(read.easiness_array, [[0.25, np.nan], [0.5, 0.75]])
    np.testing.assert_array_equal(read.losses_array, [[0.5, 0.0], [0.25, 0.0]])


@pytest.mark.parametrize("change", [{"rows": 3}, {"exit_ms": [["a"]]}, {"losses": [[0.5, 2.0]]}])
def test_a_broken_calibration_of_schema_1_is_refused(tmp_path, change) -> None:
    with support.refuses(BundleError, "c.json", "dyninfer calibrate"):
        read_calibration(write(tmp_path / "c.json", FIRST_SCHEMA | change))


def test_no_calibration_names_the_command() -> None:
    with support.refuses(PolicyError, "30% hard", "the bundle has none", COMMAND):
        check_calibration([], RECORD, "30% hard", COMMAND, times=False)


def test_the_same_engines_are_accepted() -> None:
    made = calibration_of(spread(5))
    assert check_calibration([made], RECORD, "30% hard", COMMAND, times=True) is made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stages_sha256": {"body": "a", "head": "x"}}, "other stage files (head)"),
        ({"stages_sha256": {"body": "a"}}, "other stage files (head)"),
        (
            {"precision": {"body": Precision.FP16, "head": Precision.FP16}},
            "precision fp32, not fp16",
        ),
        ({"image_inputs": {"images": "384x640"}}, "image inputs 640x640, not 384x640"),
        ({"backend": "tensorrt"}, "backend onnxruntime, not tensorrt"),
        ({"backend_version": "1.1"}, "backend version 1.0, not 1.1"),
        ({"provider": "cuda"}, "provider cpu, not cuda"),
    ],
)
def test_other_engines_are_refused_with_what_differs(change, said) -> None:
    other = RECORD.model_copy(update=change)
    made: Calibration = calibration_of(spread(5))
    for kept, which in ((1, "the bundle's was"), (2, "the nearest of the bundle's was")):
        told = f"30% hard needs a calibration of these engines, but {which} made with {said}; run:"
        with support.refuses(PolicyError, told, COMMAND):
            check_calibration([made] * kept, other, "30% hard", COMMAND, times=False)


def test_another_processor_matters_only_for_times() -> None:
    other = RECORD.model_copy(update={"device_name": "another"})
    made = calibration_of(spread(5))
    assert check_calibration([made], other, "30% hard", COMMAND, times=False) is made
    with support.refuses(PolicyError, "12 ms", "a processor, 2 cores, not another"):
        check_calibration([made], other, "12 ms", COMMAND, times=True)


def of_engines(**changes: object) -> Calibration:
    record = RECORD.model_copy(update=changes)
    return calibration_of(spread(5)).model_copy(update={"engine": record})


INT8 = {"body": Precision.INT8, "head": Precision.FP32}


def test_each_set_of_engines_has_a_calibration_of_its_own(tmp_path) -> None:
    fp32, int8, elsewhere = (
        of_engines(),
        of_engines(precision=INT8, stages_sha256={"body": "q", "head": "b"}),
        of_engines(device_name="another"),
    )
    file = add_calibration((), fp32)
    assert file.others == ()
    for newer in (int8, elsewhere, fp32.model_copy(update={"written_by": "a later run"})):
        file = add_calibration(file.all, newer)
    document = write(tmp_path / "c.json", file.model_dump(mode="json"))
    found = read_sealed(document, CalibrationFile, "", SCHEMA_VERSION).all
    assert [entry.written_by for entry in found] == ["a later run", "a test", "a test"]
    for wanted in (fp32, int8, elsewhere):
        engine = wanted.engine
        assert check_calibration(found, engine, "12 ms", COMMAND, times=True).engine == engine
    # thresholds hold on any processor, but one from this processor comes first
    there = int8.engine.model_copy(update={"device_name": "another"})
    assert check_calibration(found, there, "30% hard", COMMAND, times=False).engine == int8.engine
    with support.refuses(PolicyError, "the nearest of the bundle's", "not another", COMMAND):
        check_calibration(found, there, "12 ms", COMMAND, times=True)


def test_a_file_keeps_the_newest_of_too_many() -> None:
    file = add_calibration((), of_engines(backend_version="0"))
    for number in range(1, MOST_KEPT + 3):
        file = add_calibration(file.all, of_engines(backend_version=str(number)))
    versions = [int(entry.engine.backend_version) for entry in file.all]
    assert versions == list(range(MOST_KEPT + 2, 2, -1))
    assert len(versions) == 16


def with_value(payload: dict, place: str, value: float) -> dict:
    """A copy in which the number at ``rows.0.percentile`` or the like is another."""
    *parents, name = place.split(".")
    changed = json.loads(json.dumps(payload))
    at = changed
    for step in parents:
        at = at[int(step)] if step.isdigit() else at[step]
    at[int(name) if name.isdigit() else name] = value
    return changed


ANY = 1e12  # no bound above
SHARES = ("rows.0.hard_fraction", "rows.0.agreement", "ways.0.share", "losses.0.0")
SHARES += tuple(
    f"certificate.{name}" for name in ("risk", "confidence", "hard_fraction", "measured_risk")
)


@pytest.mark.parametrize(
    ("place", "least", "most"),
    [
        *((share, 0, 1) for share in SHARES),
        ("rows.0.percentile", 0, 100),
        ("rows.0.threshold", 0, ANY),
        ("rows.0.mean_ms", 0, ANY),
        ("ways.1.mean_macs", 0, ANY),
        ("certificate.threshold", 0, ANY),
    ],
)
def test_numbers_have_their_bounds(tmp_path, payload, place, least, most) -> None:
    for value in (least, most):
        read_calibration(write(tmp_path / "c.json", with_value(payload, place, value)))
    beyond = [least - 0.01] if most == ANY else [least - 0.01, most + 0.01]
    for value in beyond:
        with support.refuses(BundleError, "c.json", place.rpartition(".")[2]):
            read_calibration(write(tmp_path / "c.json", with_value(payload, place, value)))


def test_a_calibration_is_of_two_pictures_at_least(tmp_path) -> None:
    two = calibration_of(spread(2)).model_dump(mode="json")
    read_calibration(write(tmp_path / "c.json", two))
    one = two | {"easiness": [[0.5]], "losses": [[0.1]]}
    with support.refuses(BundleError, "images.count"):
        read_calibration(write(tmp_path / "c.json", with_value(one, "images.count", 1)))


CHOICE = choosing(np.array([[0.9, 0.1], [0.2, 0.7], [0.5, 0.4]]), (100, 300), ((1.0,), (2.0,)))


def test_a_choosers_calibration_names_its_costs_and_its_dearest_branch(tmp_path) -> None:
    read = read_calibration(write(tmp_path / "c.json", CHOICE.model_dump(mode="json")))
    assert read == CHOICE
    assert (read.macs, read.dearest) == ((100, 300), 1)
    for macs, dearest in (((300, 100), 0), ((300, 300), 1)):
        ways = tuple(
            way.model_copy(update={"mean_macs": float(cost)})
            for way, cost in zip(read.ways, macs, strict=True)
        )
        assert read.model_copy(update={"ways": ways}).dearest == dearest
    cascade = calibration_of(spread(5))
    assert (cascade.macs, cascade.dearest) == ((), 1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"choice_scores": CHOICE.choice_scores[:1]}, "choice_scores and the ways'"),
        ({"choice_scores": ((0.1, 0.2),) * 2}, "choice_scores does not hold one value"),
        ({"choice_scores": ()}, "biases do not fit"),
        ({"biases": ()}, "biases do not fit"),
        ({"ways": [w.model_copy(update={"mean_macs": None}) for w in CHOICE.ways]}, "mean_macs"),
        (
            {"biases": [row.model_copy(update={"shares": (1.0,)}) for row in CHOICE.biases]},
            "biases do not fit",
        ),
        (
            {"biases": [row.model_copy(update={"shares": (0.5,) * 3}) for row in CHOICE.biases]},
            "biases do not fit",
        ),
    ],
)
def test_what_fits_no_chooser_is_refused(change, named) -> None:
    with pytest.raises(ValueError, match=named):
        Calibration.model_validate({**dict(CHOICE), **change})


def test_precisions_are_told_in_words() -> None:
    assert RECORD.precision_words == "fp32"
    mixed = RECORD.model_copy(update={"precision": INT8})
    assert mixed.precision_words == "body=int8, head=fp32"
