from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.errors import InputError
from tests import support
from tests.exporters.morphism.students import (
    STUDENTS,
    answers,
    assert_close,
    backbone,
    detector,
    drawn,
    efficientdet,
    faster_rcnn,
    masked,
    parameters,
)

EXAMPLES = settings(max_examples=4, deadline=None)
KINDS = pytest.mark.parametrize("kind", STUDENTS)
DETECTORS = ("efficientdet", "faster-rcnn", "gflv2")


def places(data: st.DataObject, stages: dict[str, int]) -> tuple[str, int]:
    stage = data.draw(st.sampled_from(sorted(stages)))
    return stage, data.draw(st.integers(0, stages[stage] - 1))


@KINDS
@EXAMPLES
@given(data=st.data())
def test_added_blocks_change_nothing_at_all(kind: str, data: st.DataObject) -> None:
    base = student = STUDENTS[kind]()
    expected = dict(base.stages)
    for _ in range(data.draw(st.integers(1, 3))):
        stage, block = places(data, student.stages)
        student = student.add(stage, block)
        expected[stage] += 1
    assert student.stages == expected
    assert all(map(torch.equal, answers(student), answers(base)))  # with as many threads as now


@KINDS
def test_a_dropped_block_takes_its_parameters_and_what_it_added(kind: str) -> None:
    base = STUDENTS[kind]()
    for stage in [name for name, depth in base.stages.items() if depth > 1][-2:]:
        block = base.stages[stage] - 1
        place = base.wiring.stages[stage]
        own = [
            tensor.numel()
            for name, tensor in base.state.items()
            if name.startswith(f"{place.prefix}.{block}.")
            and not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        ]
        student = base.drop(stage, block)
        assert parameters(base) - parameters(student) == sum(own) > 0
        # of a block that adds nothing, nothing is missed
        last, state = place.blocks[block].layers[-1], dict(base.state)
        for part in ("weight", "bias"):
            state[f"{last.norm}.{part}"] = torch.zeros_like(state[f"{last.norm}.{part}"])
        silent = replace(base, state=state)
        assert all(map(torch.equal, answers(silent.drop(stage, block)), answers(silent)))


@pytest.mark.parametrize("kind", DETECTORS)
def test_thinning_all_widths_is_masking_them(kind: str) -> None:
    student = silent = base = STUDENTS[kind]()
    for width, most in base.widths.items():
        keep = drawn(base, width, most // 2 + 1)
        student, silent = student.thin(width, keep), masked(silent, width, keep)
    assert student.widths == {width: most // 2 + 1 for width, most in base.widths.items()}
    assert_close(answers(student), answers(silent))


@pytest.mark.parametrize("kind", DETECTORS)
def test_widening_all_widths_changes_nothing_but_by_rounding(kind: str) -> None:
    student = base = STUDENTS[kind]()
    for width in base.widths:
        student = student.widen(width, drawn(base, width, 3))
    assert student.widths == {width: most + 3 for width, most in base.widths.items()}
    assert_close(answers(student), answers(base))


def test_a_backbones_maps_have_the_channels_that_were_chosen() -> None:
    base = backbone()
    expected = answers(base)
    for width, most in base.widths.items():
        keep, copies = drawn(base, width, most // 2 + 1), drawn(base, width, 5)
        student = base.thin(width, keep)
        assert_close(answers(student), answers(masked(base, width, keep)), keep.get(width))
        wide = base.widen(width, copies)
        assert_close(answers(wide), expected, [*range(most), *copies.get(width, ())])


@pytest.mark.parametrize(
    ("kind", "stage", "to"),
    [("faster-rcnn", "layer4", "layer2"), ("gflv2", "block_list.3", "block_list.1")],
)
def test_a_moved_block_is_dropped_and_added(kind: str, stage: str, to: str) -> None:
    base = STUDENTS[kind]()
    student, dropped = base.move(stage, 1, to, 0), base.drop(stage, 1)
    assert student.stages == {**base.stages, stage: base.stages[stage] - 1, to: base.stages[to] + 1}
    assert parameters(student) == parameters(dropped.add(to, 0))
    assert all(map(torch.equal, answers(student), answers(dropped)))


def test_an_added_block_inherits_and_can_be_trained() -> None:
    base = faster_rcnn()
    student = base.add("layer4", 1)
    for name in ("conv1.weight", "conv2.weight", "bn2.running_var"):
        assert torch.equal(
            student.state[f"backbone.layer4.2.{name}"], base.state[f"backbone.layer4.1.{name}"]
        )
    assert torch.equal(
        student.state["backbone.layer4.3.conv1.weight"],
        base.state["backbone.layer4.2.conv1.weight"],
    )
    new = base.add("layer3", 0).state["backbone.layer3.1.conv1.weight"]
    assert new.shape == (8, 32, 1, 1)
    assert 0.15 < new.std() < 0.35


def test_what_counts_most_stays() -> None:
    base, name = faster_rcnn(), "layer4.1.conv1"
    weight = base.state["backbone.layer4.1.conv1.weight"]
    torch.testing.assert_close(base.importance(name)[name], weight.abs().sum((1, 2, 3)))
    factors = base.state["backbone.layer4.1.bn1.weight"].abs()
    assert torch.equal(base.importance(name, by_norm=True)[name], factors)
    added = [
        base.state[f"backbone.layer2.{each}.weight"]
        for each in ("downsample.0".join(["0.", ""]), "0.conv3", "1.conv3")
    ]
    sums = sum(each.abs().sum((1, 2, 3)) for each in added)
    torch.testing.assert_close(base.importance("layer2")["layer2"], sums)
    scores = {name: torch.tensor([0.1, 3.0, 2.0, 3.0, 0.0])}
    assert base.most_important(name, 2, scores) == {name: [1, 3]}
    assert base.most_important(name, 3, scores) == {name: [1, 2, 3]}
    with support.refuses(InputError, "expected 1 to 5"):
        base.most_important(name, 6)


def test_gradients_reach_the_parent() -> None:
    base = backbone()
    state = {
        name: t.clone().requires_grad_(t.is_floating_point()) for name, t in base.state.items()
    }
    parent = replace(base, state=state)
    child = parent.thin("block_list.4.btn", parent.most_important("block_list.4.btn", 5))
    child.add("block_list.2", 0).drop("block_list.4", 2)
    child.state["block_list.4.block_list.1.conv2.conv1.weight"].sum().backward()
    gradient = state["block_list.4.block_list.1.conv2.conv1.weight"].grad
    assert gradient is not None
    assert gradient.sum() == 5 * 5 * 25


def test_what_was_trained_is_taken_over() -> None:
    base = detector()
    model = base.model()
    with torch.no_grad():
        model.bbox_head.gfl_cls.bias.add_(1)
    student = base.trained(model)
    name = "bbox_head.gfl_cls.bias"
    assert torch.equal(student.state[name], base.state[name] + 1)
    assert student.state.keys() == base.state.keys()


INNER = "layer4.0.conv1"
WRONG = {
    "first block": (lambda s: s.drop("layer2", 0), "brings what follows its size and channels"),
    "no such stage": (lambda s: s.add("layer5", 0), "the stage is 'layer5', expected layer1 or"),
    "no such block": (lambda s: s.add("layer3", 1), "layer3 has 1 block: expected 0 to 0"),
    "negative": (lambda s: s.drop("layer4", -1), "expected 0 to 2"),
    "no such width": (lambda s: s.thin("layer4.0.conv3", {}), "the width is 'layer4.0.conv3'"),
    "nothing left": (lambda s: s.thin(INNER, {INNER: []}), "expected some, each once"),
    "twice": (lambda s: s.thin(INNER, {INNER: [1, 1]}), "each once"),
    "too many": (lambda s: s.thin("layer4", {"layer4": [40]}), "40, expected some from 0 to 39"),
    "negative channel": (lambda s: s.thin(INNER, {INNER: [-1]}), "from 0 to 11"),
    "copies": (lambda s: s.widen(INNER, {INNER: [12]}), "are 12, expected some from 0 to 11"),
    "no part": (lambda s: s.thin(INNER, {}), "no part were given for layer4.0.conv1, expected"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_changed_is_refused(kind: str) -> None:
    change, reason = WRONG[kind]
    with support.refuses(InputError, reason):
        change(faster_rcnn())


def test_a_block_that_starts_in_groups_is_copied_where_it_fits() -> None:
    """As the first of an EfficientDet, which has no pointwise convolution before."""
    shapes = {"conv_dw": (12, 1, 3, 3), "conv_pw": (8, 12, 1, 1)}
    state = {
        name: torch.zeros(12) if name.startswith("backbone.blocks.0.0.bn1") else each
        for name, each in efficientdet().state.items()
    }
    state |= {f"backbone.blocks.0.0.{n}.weight": torch.zeros(s) for n, s in shapes.items()}
    base = replace(efficientdet(), state=state)
    with support.refuses(InputError, "block 0 of blocks.0 starts with a convolution in groups"):
        base.add("blocks.0", 0)
    assert base.add("blocks.0", 1).stages["blocks.0"] == 3


def test_parts_of_a_width_have_as_many_channels_each() -> None:
    base, name = detector(), "block_list.1.btn"
    keep = base.most_important(name, 3)
    keep[min(keep)] = [0]
    with support.refuses(InputError, "expected as many for each"):
        base.thin(name, keep)
