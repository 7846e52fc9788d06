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
    colours = manifest_of(support.write_static_classifier, tmp_path / "classes")
    with pytest.raises(ValidationError, match="2 class names for 3 columns of logits"):
        changed(colours, class_names=colours.class_names[:2])
    stages = two.model_dump()["stages"]
    outputs = [dict(output) for output in stages["second"]["outputs"]]
    for shape in (("batch", 4), ("batch", 1, 4, 1)):
        outputs[0]["shape"] = shape
        with pytest.raises(ValidationError, match="expected 3 axes"):
            changed(two, stages=stages | {"second": stages["second"] | {"outputs": outputs}})


def test_an_ordinary_detector_of_schema_1_was_a_list_of_one_exit(tmp_path) -> None:
    static = manifest_of(support.write_static_two_stages, tmp_path)
    way = {"body": "body", "head": "head", "image_input": "images"}
    written = static.model_dump() | {"schema_version": 1}

    def of(**exit_: Any) -> Manifest:
        return Manifest.model_validate(written | {"route": {"kind": "static", "exits": [exit_]}})

    assert of(**way) == of(**way, router=None) == static
    with pytest.raises(ValidationError, match="router"):
        of(**way, router="head")
    with pytest.raises(ValidationError, match="exits"):  # of schema 2 it is none
        changed(static, route={"kind": "static", "exits": [way]})
    cascade = manifest_of(support.write_two_exits, tmp_path / "two")
    assert changed(cascade, schema_version=1) == cascade


@pytest.mark.parametrize(
    "file", ["/a", "..", "../a", "a/../b", "a/..", "a\\b", "c:a", "a\0b", "", "a:"]
)
def test_files_lie_within_the_folder(file: str) -> None:
    with pytest.raises(ValidationError, match="leaves the bundle's folder"):
        StoredFile(file=file, sha256=HASH)


@pytest.mark.parametrize("file", ["a", "a/b", "a..b", "..a", ".a/b.", "a b"])
def test_names_with_dots_lie_there_too(file: str) -> None:
    assert StoredFile(file=file, sha256=HASH).file == file


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Manifest:
    return manifest_of(support.write_three_exits, tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def select(tmp_path_factory) -> Manifest:
    return manifest_of(support.write_select_detectors, tmp_path_factory.mktemp("select"))


def with_tensor(manifest: Manifest, stage: str, side: str, place: int = 0, **fields) -> Manifest:
    """Changed in one input or output of one stage."""
    stages = manifest.model_dump()["stages"]
    tensors = [dict(tensor) for tensor in stages[stage][side]]
    tensors[place] |= fields
    return changed(manifest, stages=stages | {stage: stages[stage] | {side: tensors}})


@pytest.mark.parametrize(
    ("stage", "side", "fields", "told"),
    [
        ("body_1", "inputs", {"shape": ("batch", 3, 8, 9)}, "expects images float32"),
        ("body_1", "inputs", {"shape": ("batch", 3, 9, 8)}, "but the image input is 8x8"),
        ("body_1", "inputs", {"shape": ("batch", 1, 8, 8)}, "but the image input is 8x8"),
        ("body_1", "inputs", {"shape": ("batch", 3, 8)}, "but the image input is 8x8"),
        ("head_1", "inputs", {"dtype": "float16"}, "an earlier stage makes value_1 float32"),
        ("head_1", "inputs", {"shape": ("batch", 4)}, "an earlier stage makes value_1 float32"),
        ("head_1", "inputs", {"dtype": "uint8"}, "which no image input is"),
        ("head_1", "inputs", {"name": "value_2"}, "nothing before stage 'head_1' makes"),
        ("body_1", "outputs", {"dtype": "uint8"}, "makes value_1 uint8"),
        ("router_2", "outputs", {"name": "ease"}, "'router_2' decides and has no output"),
        ("head_2", "outputs", {"name": "boxes"}, "without ['boxes_xyxy']"),
    ],
)
def test_tensors_fit_from_stage_to_stage(three, stage, side, fields, told) -> None:
    with pytest.raises(ValidationError) as refused:
        with_tensor(three, stage, side, **fields)
    assert told in str(refused.value)


def test_images_may_be_pixels_and_columns_of_a_number_that_is_found_in_a_run(three) -> None:
    pixels = with_tensor(three, "body_2", "inputs", dtype="uint8")
    assert pixels.image_tensors["images_2"].dtype == "uint8"
    place = [spec.name for spec in three.stages["head_1"].outputs].index("class_scores")
    free = with_tensor(three, "head_1", "outputs", place, shape=("batch", "boxes", "classes"))
    assert free.stages["head_1"].outputs[place].shape[1:] == ("boxes", "classes")


def test_a_branch_reads_nothing_of_another_and_a_chooser_scores_each(select) -> None:
    for shape in (("batch", 1), ("batch", 3), ("batch",), ("batch", 2, 1)):
        with pytest.raises(ValidationError, match="there are 2 branches for choice_scores"):
            with_tensor(select, "chooser", "outputs", shape=shape)
    assert list(select.roles.items()) == [
        ("chooser", "chooser"),
        ("body_0", "body of branch 0"),
        ("body_1", "body of branch 1"),
        ("head_1", "head of branch 1"),
    ]
    assert select.stages_to(1) == ("chooser", "body_1", "head_1")
    first, second = select.route.model_dump()["branches"]
    route = {"kind": "select", "chooser": "chooser", "branches": [second, first]}
    assert changed(select, route=route).stages_to(0) == ("chooser", "body_1", "head_1")
    stages = select.model_dump()["stages"]
    route["branches"] = [second, first | {"head": "head_0"}]
    with pytest.raises(ValidationError, match="before stage 'head_0' makes its input 'value'"):
        changed(select, route=route, stages=stages | {"head_0": stages["head_1"]})


def test_without_a_chooser_branches_stand_by_their_cost(select) -> None:
    route, stages = select.route.model_dump() | {"chooser": None}, select.model_dump()["stages"]
    for first, second, fits in ((5, 6, True), (5, 5, True), (6, 5, False)):
        costs = {"chooser": 0, "body_0": first, "body_1": second, "head_1": 0}
        priced = {name: stage | {"macs": costs[name]} for name, stage in stages.items()}
        if fits:
            assert changed(select, route=route, stages=priced).deciders == ()
        else:
            with pytest.raises(ValidationError, match="the cheapest first"):
                changed(select, route=route, stages=priced)


def test_small_stages_are_opened_first_and_random_weights_are_told(three) -> None:
    sizes = {name: place for place, name in enumerate(reversed(three.roles))}
    stages = {
        name: stage.model_copy(update={"parameters": sizes[name]})
        for name, stage in three.stages.items()
    }
    assert three.model_copy(update={"stages": stages}).opening_order == [*three.roles][::-1]
    assert not three.random_weights
    assert changed(three, settings={"weights": "random"}).random_weights
    assert not changed(three, settings={"weights": "other"}).random_weights
