"""Numbers and names of a manifest, and what it says of its ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Stage, StoredFile, TensorSpec
from tests import support

HASH = "0123456789abcdef" * 4
STAGE = {"file": "onnx/a.onnx", "sha256": HASH, "inputs": (), "outputs": (), "macs": 0}


def manifest_of(write, folder: Path) -> Manifest:
    return Bundle.open(write(folder / "made.dyn")).manifest


def changed(manifest: Manifest, **fields: Any) -> Manifest:
    return Manifest.model_validate(manifest.model_dump() | fields)


@pytest.mark.parametrize("name", ["parameters", "macs"])
def test_a_stage_may_cost_nothing_but_no_less(name: str) -> None:
    values = {"parameters": 0, **STAGE}
    assert getattr(Stage(**values | {name: 0}), name) == 0
    with pytest.raises(ValidationError, match=name):
        Stage(**values | {name: -1})


@pytest.mark.parametrize("digest", [HASH[:-1], HASH + "0", HASH.upper(), "g" + HASH[1:]])
def test_a_hash_has_64_small_digits(digest: str) -> None:
    assert StoredFile(file="a", sha256=HASH).sha256 == HASH
    with pytest.raises(ValidationError, match="sha256"):
        StoredFile(file="a", sha256=digest)


def test_a_stage_runs_one_row_at_a_time_or_any_number() -> None:
    for rows in (1, None):
        assert Stage(**STAGE, parameters=0, rows_per_run=rows).rows_per_run == rows
    with pytest.raises(ValidationError, match="rows_per_run"):
        Stage(**STAGE, parameters=0, rows_per_run=2)


def test_shared_weights_lie_beside_their_stage() -> None:
    beside = StoredFile(file="onnx/w.bin", sha256=HASH)
    stage = Stage(**STAGE, parameters=0, weights=beside)
    assert [file.file for file in stage.files] == ["onnx/a.onnx", "onnx/w.bin"]
    assert [file.file for file in Stage(**STAGE, parameters=0).files] == ["onnx/a.onnx"]
    for place in ("w.bin", "onnx/deeper/w.bin"):
        with pytest.raises(ValidationError, match="do not lie beside"):
            Stage(**STAGE, parameters=0, weights=StoredFile(file=place, sha256=HASH))


@pytest.mark.parametrize(
    ("shape", "batch", "found"),
    [
        (("batch", 3, 8), 5, (5, 3, 8)),
        (("batch",), 1, (1,)),
        (("batch", "found", 4), 5, None),
        ((1, 3), 5, (1, 3)),
    ],
)
def test_the_shape_of_a_batch(shape, batch, found) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=shape)
    assert spec.shape_for(batch) == found
    assert str(spec) == f"x float32 ({', '.join(map(str, shape))})"


def test_a_cascade_has_two_exits_and_a_choice_two_branches(tmp_path) -> None:
    two = manifest_of(support.write_two_exits, tmp_path / "two")
    route = two.route.model_dump()
    assert changed(two, route=route) == two
    with pytest.raises(ValidationError, match="exits"):
        changed(two, route=route | {"exits": route["exits"][:1]})
    select = manifest_of(support.write_select_detectors, tmp_path / "select")
    route = select.route.model_dump()
    with pytest.raises(ValidationError, match="branches"):
        changed(select, route=route | {"branches": route["branches"][:1]})


def test_ways_are_named_and_ordered_by_what_they_cost(tmp_path) -> None:
    three = manifest_of(support.write_three_exits, tmp_path / "three")
    assert three.way_names == ("exit 0", "exit 1", "exit 2")
    assert three.ways_by_cost == (0, 1, 2)
    assert three.hardest_name == "the last exit"
    assert three.deciders == ("router_1", "router_2")
    assert three.routed
    assert three.stages_to(0) == ("body_1", "router_1", "head_1")
    assert three.stages_to(1) == ("body_1", "router_1", "body_2", "router_2", "head_2")
    assert three.stages_to(2) == ("body_1", "router_1", "body_2", "router_2", "body_3")
    assert three.roles["router_2"] == "router of exit 1"
    assert list(three.image_tensors) == ["images", "images_2"]
    assert three.pixels == sum(s.height * s.width for s in three.image_inputs.values())
    dear = manifest_of(support.write_dear_first, tmp_path / "dear")
    assert (dear.way_names, dear.ways_by_cost) == (("branch 0", "branch 1"), (1, 0))
    assert dear.hardest_name == "branch 0, the dearest,"
    assert dear.routed
    static = manifest_of(support.write_static, tmp_path / "static")
    assert (static.routed, static.deciders, static.stages_to(0)) == (False, (), ("body",))


def test_the_cost_of_a_way_is_that_of_all_stages_before_its_end(tmp_path) -> None:
    three = manifest_of(support.write_three_exits, tmp_path)
    costs = {"body_1": 1, "router_1": 10, "head_1": 100, "body_2": 1000, "router_2": 10_000}
    costs |= {"head_2": 100_000, "body_3": 1_000_000}
    stages = {n: s.model_copy(update={"macs": costs[n]}) for n, s in three.stages.items()}
    priced = three.model_copy(update={"stages": stages})
    assert [priced.macs_to(way) for way in range(3)] == [111, 111_011, 1_011_011]


def test_a_cascade_with_one_router_of_two_is_not_routed(tmp_path) -> None:
    three = manifest_of(support.write_three_exits, tmp_path)
    route = three.route.model_dump()
    for missing in (0, 1):
        exits = [dict(exit_) for exit_ in route["exits"]]
        exits[missing]["router"] = None
        half = changed(three, route=route | {"exits": exits})
        assert not half.routed
        assert len(half.deciders) == 1


def test_columns_are_as_many_as_class_names_and_axes_as_the_task_wants(tmp_path) -> None:
    two = manifest_of(support.write_two_exits, tmp_path)
    for names in (two.class_names[:1], (*two.class_names, "more")):
        with pytest.raises(ValidationError, match="class name"):
            changed(two, class_names=names)
    stages = two.model_dump()["stages"]
    outputs = [dict(output) for output in stages["second"]["outputs"]]
    for shape in (("batch", 4), ("batch", 1, 4, 1)):
        outputs[0]["shape"] = shape
        with pytest.raises(ValidationError, match="expected 3 axes"):
            changed(two, stages=stages | {"second": stages["second"] | {"outputs": outputs}})
