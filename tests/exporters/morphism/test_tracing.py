from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dyninfer.errors import CheckpointError, InputError, MissingExtra
from dyninfer.exporters.dynamicdet.morphism import DynamicDetStudent
from dyninfer.exporters.dynamicdet.topology import Op
from dyninfer.exporters.morphism import tracing
from dyninfer.exporters.morphism.tracing import Traced, group_importance
from dyninfer.exporters.morphism.wiring import Channels
from tests import support
from tests.exporters.morphism.students import (
    STUDENTS,
    backbone,
    drawn,
    faster_rcnn,
    masked,
    parameters,
)

PLACES = "model_b2.9.conv", "model_h.0.hidden"
CHECKPOINT = support.VECTORS / "dy-yolov7-narrow.pt"
OWN = ("faster-rcnn", "gflv2", "backbone")


@pytest.fixture(autouse=True)
def torch_pruning() -> None:
    pytest.importorskip("torch_pruning", reason="the extra prune is not installed")


@cache
def dynamicdet() -> DynamicDetStudent:
    return DynamicDetStudent.load(CHECKPOINT)


def predictions(student: DynamicDetStudent) -> list[Tensor]:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return [*student.forward(student.model().double(), images.double())]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", OWN)
def test_own_bookkeeping_is_that_of_torch_pruning(kind: str) -> None:
    student = STUDENTS[kind]()

    def told(channels: Channels) -> frozenset[object]:
        return frozenset(each for each in channels.slices() if each.name in student.state)

    own = {told(each) for width in student.widths for each in student.parts(width).values()}
    traced = Traced(student.model(), student.forward).widths()
    found = {told(channels): name for name, channels in traced.items()}
    assert own <= found.keys()
    # what it finds beside: a pyramid that has no width here, and results that nothing reads
    further = {"faster-rcnn": "neck.", "gflv2": "bbox_head.", "backbone": "none"}[kind]
    assert all(name.startswith(further) for told, name in found.items() if told not in own)


def test_what_is_coupled_counts_together() -> None:
    """A channel that is made of large weights and is never read counts least."""
    base, name = faster_rcnn(), "layer4.1.conv1"
    state = dict(base.state)
    state["backbone.layer4.1.conv1.weight"] = state["backbone.layer4.1.conv1.weight"].clone()
    state["backbone.layer4.1.conv1.weight"][3] *= 1.1
    state["backbone.layer4.1.conv2.weight"] = state["backbone.layer4.1.conv2.weight"].clone()
    state["backbone.layer4.1.conv2.weight"][:, 3] = 0
    state["backbone.layer4.1.bn1.weight"] = torch.ones(5)
    student = replace(base, state=state)
    scores = group_importance(student, name)
    assert scores.keys() == {name}
    assert scores[name].argmin() == 3
    assert 3 not in student.most_important(name, 4, scores)[name]
    parts = group_importance(backbone(), "block_list.4.btn")
    assert {part: len(each) for part, each in parts.items()} == dict.fromkeys(parts, 12)
    assert parts.keys() == backbone().importance("block_list.4.btn").keys()


@pytest.mark.slow
@pytest.mark.parametrize("width", PLACES)
def test_channels_of_a_topology_are_chosen_with_all_that_is_coupled(width: str) -> None:
    base = dynamicdet()
    keep = drawn(base, width, base.widths[width] // 2 + 1)
    thin = base.thin(width, keep)
    assert parameters(thin) < parameters(base)
    assert_close(predictions(thin), predictions(masked(base, width, keep)))
    assert_close(predictions(base.widen(width, drawn(base, width, 3))), predictions(base))


@pytest.mark.slow
def test_a_repconv_of_as_many_channels_as_it_reads_is_saved_with_an_identity(
    tmp_path: Path,
) -> None:
    base = dynamicdet()
    plan = base.model().plan
    row = next(each for each in base.topology.rows() if each.op is Op.REP_CONV)
    width, count = f"{row.prefix}.rbr_dense.0", plan.channels(row.inputs[0])
    assert f"{row.prefix}.rbr_identity.weight" not in base.state
    assert base.widths[width] > count
    keep = drawn(base, width, count)
    base.thin(width, keep).save(tmp_path / "student.pt")
    read = DynamicDetStudent.load(tmp_path / "student.pt")
    assert f"{row.prefix}.rbr_identity.weight" in read.state
    assert_close(predictions(read), predictions(masked(base, width, keep)))


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, tmp_path / "foreign.pt")
    with support.refuses(CheckpointError, "is not a DynamicDet checkpoint"):
        DynamicDetStudent.load(tmp_path / "foreign.pt")


@pytest.mark.slow
def test_what_was_found_wrongly_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a split that is read in another order, of which another part would be cut."""
    base, width = dynamicdet(), PLACES[0]
    wrong = Channels([*base.parts(width)[width].makers])
    for each in base.parts(width)[width].further:
        moved = tuple(0 for _ in each.starts)  # of four CBLinears
        wrong.further.append(replace(each, starts=moved))
    wiring = replace(base.wiring, widths={width: {width: wrong}})
    monkeypatch.setattr(DynamicDetStudent, "wiring", wiring)
    with support.refuses(InputError, f"the channels of {width} cannot be chosen"):
        replace(base).thin(width, drawn(base, width, 3))  # which has not looked yet


def test_blocks_of_a_topology_stay() -> None:
    for change in (lambda s: s.add("model_b", 0), lambda s: s.drop("model_b", 1)):
        with support.refuses(InputError, "no shortcut leads around any"):
            change(dynamicdet())
    with support.refuses(InputError, "expected one of"):
        dynamicdet().thin("model_h.54.m.0", {})


class Parted(nn.Module):
    """Results of a convolution, of which parts are added to others', in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Conv2d(3, 12, 1)
        self.few, self.many = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)
        self.ends = nn.ModuleList([nn.Conv2d(8, 2, 1), nn.Conv2d(4, 2, 1)])

    def forward(self, images: Tensor) -> list[Tensor]:
        whole, few = self.whole(images), self.few(images)
        return [self.ends[0](self.many(images) + whole[:, 4:]), self.ends[1](few + whole[:, :4])]


def test_parts_of_a_map_are_told_apart() -> None:
    found = Traced(Parted(), Parted.forward).widths(["ends.0", "ends.1"])
    places = {
        name: {(each.name, each.axis): each.starts for each in channels.slices()}
        for name, channels in found.items()
    }
    assert places.keys() == {"few", "many"}
    assert places["many"]["whole.weight", 0] == (4,)
    assert places["few"]["whole.weight", 0] == (0,)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _name: None)
    with support.refuses(MissingExtra, "needs Torch-Pruning; install with"):
        group_importance(backbone(), "block_list.1")
