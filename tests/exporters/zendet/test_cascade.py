from __future__ import annotations

import torch
from torch.nn import functional as F

from dyninfer.exporters.zendet.cascade import SecondStage, random_cascade
from dyninfer.exporters.zendet.export import COCO
from dyninfer.search.structure import Block, checked
from tests.exporters.zendet.test_export import UNEVEN

SIZE = (64, 96)
SECOND = [
    Block(3, 16, 3, 2),
    Block(16, 24, 3, 2, 1, 8),
    Block(24, 32, 5, 2, 2, 8),
    Block(32, 40, 3, 2, 1, 16),
    Block(40, 56, 3, 1, 2, 16),
    Block(56, 64, 3, 2, 1, 16),
]


def cascade():
    return random_cascade((checked(UNEVEN), checked(SECOND)), SIZE, len(COCO), 40, 0)


def test_the_second_backbone_is_helped_at_every_stage() -> None:
    """By every map of the first that is as coarse or coarser, here resized at once."""
    stages, images = cascade(), torch.randn(1, 3, *SIZE)
    *maps, averages = stages["first"](images)
    second = stages["second"]
    assert isinstance(second, SecondStage)
    backbone = second.backbone
    links = [[conv(m) for conv in convs] for convs, m in zip(backbone.links, maps, strict=True)]

    def helped(x: torch.Tensor, level: int) -> torch.Tensor:
        coarser = [splits[level] for splits in links[level:]]
        return x + sum(F.interpolate(each, size=x.shape[2:]) for each in coarser)

    x, expected, level = helped(backbone.block_list[0](images).relu(), 0), [], 0
    for block, module in zip(SECOND[1:], backbone.block_list[1:], strict=True):
        for number, bottleneck in enumerate(module.block_list):
            x = bottleneck(x)
            if block.stride == 2 and not number:
                level += 1
                x = helped(x, level)
        expected.append(x)
    found = backbone(images, *maps)
    for one, other in zip(found, (expected[0], expected[1], expected[3], expected[4]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert averages.shape == (1, 8 + 16 + 24 + 40 + 48)
    torch.testing.assert_close(averages[0, :8], maps[0].mean((2, 3))[0])


def test_a_cascade_is_the_same_every_time_and_finds_next_to_nothing() -> None:
    images = torch.randn(2, 3, *SIZE)
    answers = []
    for stages in (cascade(), cascade()):
        tensors = {"images": images}
        for stage in stages.values():
            made = stage(*(tensors[name] for name in stage.inputs))
            made = [made] if isinstance(made, torch.Tensor) else made
            tensors |= dict(zip(stage.outputs, made, strict=True))
        answers.append(tensors)
    one, same = answers
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert ((one["easiness"] > 0) & (one["easiness"] < 1)).all()
    assert one["class_scores"].shape == (2, 40, len(COCO))
    assert float(one["class_scores"].max()) < 0.05
