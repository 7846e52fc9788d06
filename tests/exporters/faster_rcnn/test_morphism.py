from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dyninfer.errors import CheckpointError, InputError
from dyninfer.exporters.faster_rcnn.morphism import Student, most_important
from dyninfer.exporters.faster_rcnn.names import Library, by_own_names
from tests import support
from tests.exporters.faster_rcnn import narrow

DEPTHS = (1, 2, 1, 3)
IMAGES = torch.randn(1, 3, *narrow.SIZE, generator=torch.Generator().manual_seed(3))
BASE = Student(by_own_names(narrow.mmdetection(), Library.MMDETECTION), Library.MMDETECTION, {})
BLOCKS = st.sampled_from([(s, b) for s, depth in enumerate(DEPTHS, 1) for b in range(depth)])
EXAMPLES = settings(max_examples=5, deadline=None)


def maps(student: Student) -> list[Tensor]:
    model = student.model()
    with torch.inference_mode():
        return model.neck(model.backbone(IMAGES))


EXPECTED = maps(BASE)


def depths(student: Student) -> tuple[int, ...]:
    return tuple(len(stage) for stage in student.structure.stages)


def parameters(student: Student) -> int:
    return sum(each.numel() for each in student.model().parameters())


def masked(student: Student, norms: list[str], keep: list[int]) -> Student:
    """The channels that are not kept are switched off in these norms."""
    state = dict(student.state)
    for norm in norms:
        for part in ("weight", "bias"):
            mask = torch.zeros_like(state[f"{norm}.{part}"])
            mask[keep] = 1
            state[f"{norm}.{part}"] = state[f"{norm}.{part}"] * mask
    return Student(state, student.library, student.names)


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@EXAMPLES
@given(places=st.lists(BLOCKS, min_size=1, max_size=3))
def test_added_blocks_change_nothing_at_all(places: list[tuple[int, int]]) -> None:
    student, expected = BASE, list(DEPTHS)
    for stage, block in places:
        student = student.add(stage, block)
        expected[stage - 1] += 1
    assert depths(student) == tuple(expected)
    assert all(map(torch.equal, maps(student), maps(BASE)))  # with as many threads as now


def test_an_added_block_inherits_and_can_be_trained() -> None:
    student = BASE.add(4, 1)
    for name in ("conv1.weight", "conv2.weight", "bn2.running_var"):
        assert torch.equal(
            student.state[f"backbone.layer4.2.{name}"], BASE.state[f"backbone.layer4.1.{name}"]
        )
    assert torch.equal(
        student.state["backbone.layer4.3.conv1.weight"],
        BASE.state["backbone.layer4.2.conv1.weight"],
    )
    drawn = BASE.add(3, 0).state["backbone.layer3.1.conv1.weight"]
    assert drawn.shape == (8, 32, 1, 1)
    assert 0.15 < drawn.std() < 0.35


@pytest.mark.parametrize(("stage", "block"), [(2, 1), (4, 1), (4, 2)])
def test_a_dropped_block_takes_its_parameters_and_what_it_added(stage: int, block: int) -> None:
    student, name = BASE.drop(stage, block), f"backbone.layer{stage}.{block}."
    own = sum(
        tensor.numel()
        for key, tensor in BASE.state.items()
        if key.startswith(name) and "running" not in key
    )
    assert parameters(BASE) - parameters(student) == own
    # of a block that adds nothing, nothing is missed
    silent = masked(BASE, [f"{name}bn3"], [])
    assert all(map(torch.equal, maps(silent.drop(stage, block)), maps(silent)))


@EXAMPLES
@given(place=BLOCKS, conv=st.sampled_from([1, 2]), data=st.data())
def test_thinning_is_masking(place: tuple[int, int], conv: int, data: st.DataObject) -> None:
    width = BASE.structure.stages[place[0] - 1][place[1]].convs[conv - 1].outputs
    keep = data.draw(st.lists(st.integers(0, width - 1), min_size=1, unique=True))
    student = BASE.thin(*place, conv, keep)
    assert student.structure.stages[place[0] - 1][place[1]].convs[conv - 1].outputs == len(keep)
    norm = f"backbone.layer{place[0]}.{place[1]}.bn{conv}"
    assert_close(maps(student), maps(masked(BASE, [norm], keep)))


@EXAMPLES
@given(stage=st.integers(1, 4), data=st.data())
def test_thinning_a_stage_is_masking_all_that_it_adds_up(stage: int, data: st.DataObject) -> None:
    width = narrow.OUTPUTS[stage - 1]
    keep = data.draw(st.lists(st.integers(0, width - 1), min_size=1, unique=True))
    student = BASE.thin_stage(stage, keep)
    norms = [f"backbone.layer{stage}.{block}.bn3" for block in range(DEPTHS[stage - 1])]
    norms.append(f"backbone.layer{stage}.0.downsample.1")
    assert {block.outputs for block in student.structure.stages[stage - 1]} == {len(keep)}
    assert_close(maps(student), maps(masked(BASE, norms, keep)))


@EXAMPLES
@given(place=BLOCKS, conv=st.sampled_from([1, 2]), data=st.data())
def test_widening_changes_nothing_but_by_rounding(place, conv: int, data: st.DataObject) -> None:
    width = BASE.structure.stages[place[0] - 1][place[1]].convs[conv - 1].outputs
    copies = data.draw(st.lists(st.integers(0, width - 1), max_size=12))
    student = BASE.widen(*place, conv, copies)
    assert parameters(student) >= parameters(BASE)
    assert_close(maps(student), EXPECTED)


def test_a_moved_block_is_dropped_and_added() -> None:
    student = BASE.move(4, 1, 2, 0)
    assert depths(student) == (1, 3, 1, 2)
    assert parameters(student) == parameters(BASE.drop(4, 1).add(2, 0))
    assert all(map(torch.equal, maps(student), maps(BASE.drop(4, 1))))


def test_what_counts_most_stays() -> None:
    filters = BASE.importance(4, 1, 1)
    weight = BASE.state["backbone.layer4.1.conv1.weight"]
    torch.testing.assert_close(filters, weight.abs().sum((1, 2, 3)))
    norms = BASE.importance(4, 1, 1, by_norm=True)
    assert torch.equal(norms, BASE.state["backbone.layer4.1.bn1.weight"].abs())
    assert most_important(torch.tensor([0.1, 3.0, 2.0, 3.0]), 2) == [1, 3]
    assert most_important(torch.tensor([1.0, 3.0, 2.0]), 2) == [1, 2]
    with support.refuses(InputError, "expected 1 to 3"):
        most_important(torch.ones(3), 4)


@pytest.mark.parametrize("library", ["mmdetection", "torchvision"])
def test_a_student_is_saved_in_its_librarys_names(tmp_path: Path, library: str) -> None:
    source = narrow.save(getattr(narrow, library)(), tmp_path / "base.pth")
    Student.load(source).save(tmp_path / "same.pth")
    first, again = (torch.load(tmp_path / f"{n}.pth")["state_dict"] for n in ("base", "same"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    student = Student.load(source).add(4, 2).drop(2, 1).thin(4, 1, 1, [0, 2]).thin_stage(1, [3, 1])
    student.save(tmp_path / "student.pth")
    read = Student.load(tmp_path / "student.pth")
    assert (read.library, depths(read)) == (Library(library), (1, 1, 1, 4))
    assert all(map(torch.equal, maps(read), maps(student)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("base.pth", "same.pth", "student.pth")
    ]


def test_basic_blocks_are_thinned_between_their_two_convolutions() -> None:
    state = {n: t for n, t in BASE.state.items() if not n.startswith("backbone.layer4.")}
    generator = torch.Generator().manual_seed(5)
    for name, shape in {
        "0.conv1": (6, 32, 3, 3), "0.conv2": (40, 6, 3, 3), "0.downsample.0": (40, 32, 1, 1),
        "1.conv1": (5, 40, 3, 3), "1.conv2": (40, 5, 3, 3),
    }.items():  # fmt: skip
        state[f"backbone.layer4.{name}.weight"] = torch.randn(shape, generator=generator) / 9
        norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        for part, value in (
            ("weight", 0.9),
            ("bias", 0.1),
            ("running_mean", 0),
            ("running_var", 1),
        ):
            state[f"backbone.layer4.{norm}.{part}"] = torch.full(shape[:1], float(value))
    basic = Student(state, Library.MMDETECTION, {})
    assert all(map(torch.equal, maps(basic.add(4, 1)), maps(basic)))
    thin = basic.thin(4, 1, 1, [4, 0])
    assert_close(maps(thin), maps(masked(basic, ["backbone.layer4.1.bn1"], [4, 0])))


WRONG = {
    "first block": (lambda: BASE.drop(2, 0), "brings the stage its size"),
    "no such stage": (lambda: BASE.add(5, 0), "the stage is 5, expected 1 to 4"),
    "no such block": (lambda: BASE.add(3, 1), "stage 3 has 1 block: expected 0 to 0"),
    "negative": (lambda: BASE.drop(4, -1), "expected 0 to 2"),
    "last convolution": (lambda: BASE.thin(4, 0, 3, [0]), "expected 1 to 2"),
    "nothing left": (lambda: BASE.thin(4, 0, 1, []), "expected some from 0 to 11"),
    "twice": (lambda: BASE.thin(4, 0, 1, [1, 1]), "each once"),
    "too many": (lambda: BASE.thin_stage(4, [40]), "from 0 to 39"),
    "copies": (lambda: BASE.widen(4, 0, 1, [12]), "expected channels from 0 to 11"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_changed_is_refused(kind: str) -> None:
    change, reason = WRONG[kind]
    with support.refuses(InputError, reason):
        change()


def test_convolutions_in_groups_keep_their_channels() -> None:
    state = dict(BASE.state)
    state["backbone.layer4.1.conv1.weight"] = torch.zeros(6, 40, 1, 1)
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"backbone.layer4.1.bn1.{part}"] = torch.ones(6)
        state[f"backbone.layer4.1.bn2.{part}"] = torch.ones(6)
    state["backbone.layer4.1.conv2.weight"] = torch.zeros(6, 3, 3, 3)
    state["backbone.layer4.1.conv3.weight"] = torch.zeros(40, 6, 1, 1)
    grouped = Student(state, Library.MMDETECTION, {})
    assert grouped.structure.stages[3][1].convs[1].groups == 2
    with support.refuses(InputError, "convolutions in groups"):
        grouped.thin(4, 1, 1, [0])
    assert depths(grouped.add(4, 1)) == (1, 2, 1, 4)


def test_a_checkpoint_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    state = narrow.mmdetection()
    state["backbone.layer4.1.conv2.weight"] = torch.zeros(7, 6, 3, 3)
    source = narrow.save(state, tmp_path / "base.pth")
    with support.refuses(CheckpointError, "layers do not meet"):
        Student.load(source)
