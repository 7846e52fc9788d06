"""A gate as it is written, and builds that have passed one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from dyninfer import InputError
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.files import Making, make_build
from dyninfer.builds.gate import FallBack, GateRecord, describe_gate, measured, parse_gate
from dyninfer.builds.search import find_build, list_builds
from dyninfer.builds.spec import parse_precision
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision, Task
from tests import support

DETECTS = SimpleNamespace(task=Task.DETECT)
CLASSIFIES = SimpleNamespace(task=Task.CLASSIFY)
MAPS = SimpleNamespace(task=Task.FEATURES)


@pytest.mark.parametrize(
    ("manifest", "text", "limits"),
    [
        (DETECTS, "ap=0.3,flips=1%", {"ap": 0.3, "flips": 1.0}),
        (DETECTS, " differ = 2.5% , ap=.25 ", {"differ": 2.5, "ap": 0.25}),
        (DETECTS, "flips=0%", {"flips": 0.0}),
        (CLASSIFIES, "top-1=100", {"top-1": 100.0}),
        (MAPS, "differ=2%", {"differ": 2.0}),
    ],
)
def test_a_gate_is_read_and_written(manifest, text, limits) -> None:
    assert parse_gate(text, manifest) == limits
    assert parse_gate(describe_gate(limits), manifest) == limits


@pytest.mark.parametrize(
    ("manifest", "text", "parts"),
    [
        (DETECTS, "", ["''", "ap, flips, differ", "ap=0.3,flips=1%"]),
        (DETECTS, "ap", ["'ap'", "ap=0.3"]),
        (DETECTS, "app=0.3", ["'app=0.3'", "did you mean 'ap'?"]),
        (DETECTS, "ap=0.3,flip=1%", ["'flip=1%'", "did you mean 'flips'?"]),
        (DETECTS, "flips=1", ["'1'", "percent, such as 1%"]),
        (DETECTS, "ap=1%", ["'1%'", "points, such as 0.3"]),
        (DETECTS, "ap=101", ["'101'", "0 to 100"]),
        (DETECTS, "ap=-1", ["'-1'"]),
        (DETECTS, "ap=nan", ["'nan'"]),
        (DETECTS, "ap=1e1", ["'1e1'"]),
        (DETECTS, "ap=1,ap=2", ["gives ap twice"]),
        (DETECTS, "ap=1,", ["''"]),
        (DETECTS, "top-1=1", ["'top-1=1'"]),
        (CLASSIFIES, "ap=1", ["'ap=1'", "top-1, flips, differ", "top-1=0.3"]),
        (MAPS, "ap=1", ["'ap=1'", "one of flips, differ", "a gate looks like differ=2%"]),
    ],
)
def test_what_is_no_gate_is_told_in_one_line(manifest, text, parts) -> None:
    with support.refuses(InputError, *parts):
        parse_gate(text, manifest)


def test_figures_are_shown_in_their_units() -> None:
    assert measured("ap", 0.31415) == "0.314"
    assert measured("flips", 12.3456) == "12.3%"
    assert measured("ap", -0.0) == "0"


def record(asked, **found: float) -> GateRecord:
    fall = FallBack(stage="first", before=Precision.INT8, after=Precision.FP16, why="it lost much")
    return GateRecord(
        limits={"ap": 0.3, "flips": 1},
        found={"ap": 0.1, "flips": 0.5} | found,
        asked=asked,
        fell_back=(fall,),
        pictures=3,
        images_sha256="0" * 64,
        measured_on="a test",
    )


def test_a_record_says_what_was_found_of_what_was_allowed() -> None:
    assert record({}).words == "ap 0.1 of 0.3, flips 0.5% of 1%"
    with pytest.raises(ValidationError, match="limited and not measured: ap"):
        GateRecord(**record({}).model_dump() | {"found": {"flips": 0.5}})


def test_a_fallback_stands_for_what_was_asked_for(tmp_path: Path) -> None:
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    manifest, builder = bundle.manifest, ConversionBuilder()
    plans = [parse_precision(text, manifest) for text in ("int8", "int8,first=fp16", "fp16")]
    wanted, lower, other = (builder.wanted(manifest, plan, 8) for plan in plans)
    gated = make_build(bundle, lower, Making(accept=lambda _: (record(plans[0]), {"figures": 1})))
    assert gated.parity() == {"figures": 1}
    for spec in (wanted, lower):
        found = find_build(bundle, spec)
        assert found is not None
        assert (found.path, found.build.gate) == (gated.path, record(plans[0]))
    assert find_build(bundle, other) is None
    make_build(bundle, wanted)  # what passed no gate stands behind what did
    found = find_build(bundle, wanted)
    assert found is not None
    assert found.path == gated.path


def test_what_is_not_accepted_leaves_no_build(tmp_path: Path) -> None:
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    wanted = ConversionBuilder().wanted(
        bundle.manifest, parse_precision("fp16", bundle.manifest), 8
    )
    seen = []

    def refuse(opened):
        seen.append(opened.stage_path("first"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_build(bundle, wanted, Making(accept=refuse))
    assert seen == [None]
    assert list_builds(bundle) == ({}, [])
    assert support.files_below(bundle.path / "engines").keys() <= {".lock"}
