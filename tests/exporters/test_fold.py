from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dyninfer.exporters.dynamicdet import layers
from dyninfer.exporters.dynamicdet.fold import PyramidFuse, fold
from dyninfer.exporters.dynamicdet.model import DynamicDetector, load_model, model_from_state
from dyninfer.exporters.dynamicdet.topology import published
from tests import support


def all_outputs(model: DynamicDetector, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        features = model.first(images)
        return [model.easiness(features), *model.head(features), *model.second(features)]


def assert_same_outputs(first: DynamicDetector, second: DynamicDetector, size: int) -> None:
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    pairs = list(zip(all_outputs(first, images), all_outputs(second, images), strict=True))
    assert any(a.abs().max() > 0.1 for a, _ in pairs)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def merged_state(model: DynamicDetector) -> dict[str, torch.Tensor]:
    """The state dict after the branches of every RepConv were merged by their definition."""
    state = dict(model.state_dict())
    for name, block in model.named_modules():
        if not isinstance(block, layers.RepConv):
            continue
        width = block.rbr_dense[0].weight.shape[1]
        centre = torch.zeros(1, width, 3, 3, dtype=torch.float64)
        zero = branches(block, centre)
        # the response to one impulse per input channel, flipped, is the merged kernel
        responses = []
        for channel in range(width):
            impulse = centre.clone()
            impulse[0, channel, 1, 1] = 1
            responses.append((branches(block, impulse) - zero)[0].flip(1, 2))
        state |= {
            f"{name}.rbr_reparam.weight": torch.stack(responses, 1).float(),
            f"{name}.rbr_reparam.bias": zero[0, :, 1, 1].float(),
        }
        for key in [key for key in state if key.startswith(f"{name}.rbr_") and "rep" not in key]:
            del state[key]
    return state


def branches(block: layers.RepConv, x: torch.Tensor) -> torch.Tensor:
    def normed(bn: nn.BatchNorm2d, y: torch.Tensor) -> torch.Tensor:
        parts = (bn.running_mean, bn.running_var, bn.weight, bn.bias)
        return F.batch_norm(y, *(p.double() for p in parts), eps=1e-3)

    dense, point = block.rbr_dense, block.rbr_1x1
    total = normed(dense[1], F.conv2d(x, dense[0].weight.double(), padding=1))
    total = total + normed(point[1], F.conv2d(x, point[0].weight.double()))
    return total if block.rbr_identity is None else total + normed(block.rbr_identity, x)


def test_folding_leaves_convolutions_only_and_changes_no_output(small_model) -> None:
    folded = fold(small_model)
    leaves = {type(m) for m in folded.modules() if not list(m.children())}
    assert not leaves & {nn.BatchNorm2d, layers.ImplicitA, layers.ImplicitM, layers.RepConv}
    assert_same_outputs(small_model, folded, 64)


@pytest.mark.parametrize("variant", support.VARIANTS)
def test_folding_changes_no_output_of_a_published_variant(variant) -> None:
    model = load_model(support.checkpoint_of(variant))
    assert_same_outputs(model, fold(model), 64)


def test_folding_leaves_the_source_as_it_was(small_model) -> None:
    before = {name: tensor.clone() for name, tensor in small_model.state_dict().items()}
    fold(small_model)
    assert list(small_model.state_dict()) == list(before)
    assert all(torch.equal(t, before[n]) for n, t in small_model.state_dict().items())


def test_a_reparameterised_checkpoint_equals_the_one_with_branches(small_model) -> None:
    merged = model_from_state(small_model.topology, merged_state(small_model))
    assert len(merged.plan.reparameterised) == 2
    assert_same_outputs(small_model, merged, 64)
    assert_same_outputs(small_model, fold(merged), 64)


def test_a_published_variant_may_be_reparameterised() -> None:
    model = load_model(support.checkpoint_of("dy-yolov7"))
    merged = model_from_state(published("dy-yolov7"), merged_state(model))
    assert len(merged.plan.reparameterised) == 6
    assert_same_outputs(model, fold(merged), 64)


def test_space_to_depth_lists_rows_before_columns() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    blocks = layers.SpaceToDepth2()(image)[0, :, 0, 0].tolist()
    assert blocks == [0, 4, 1, 5]  # (even, even), (odd, even), (even, odd), (odd, odd) row, column


def test_the_pyramid_equals_pools_of_5_9_and_13() -> None:
    torch.manual_seed(0)
    block = layers.SPPCSPC(6, 4, 8).eval()
    x = torch.randn(2, 6, 20, 20)
    inner = block.cv4(block.cv3(block.cv1(x)))
    pools = [inner, *(F.max_pool2d(inner, k, 1, k // 2) for k in (5, 9, 13))]
    expected = block.cv7(torch.cat([block.cv6(block.cv5(torch.cat(pools, 1))), block.cv2(x)], 1))
    assert torch.equal(block(x), expected)


def test_batch_norms_use_the_published_epsilon(small_model) -> None:
    epsilons = {m.eps for m in small_model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert epsilons == {1e-3}
    momenta = {m.momentum for m in small_model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.03}


@pytest.mark.parametrize(
    ("widths", "stride", "passes_on"),
    [((4, 4), 1, True), ((4, 4), 2, False), ((4, 8), 1, False), ((8, 4), 1, False)],
)
def test_a_block_passes_its_input_on_where_shapes_allow_it(widths, stride, passes_on) -> None:
    block = layers.RepConv(*widths, stride)
    assert (block.rbr_identity is not None) is passes_on
    side = 6 // stride
    assert block.eval()(torch.zeros(1, widths[0], 6, 6)).shape == (1, widths[1], side, side)


@pytest.mark.parametrize(
    "sizes",
    [
        [(8, 12)],
        [(8, 12), (4, 6), (2, 3)],
        [(9, 12), (4, 6)],
        [(8, 13), (4, 6)],
        [(8, 12), (4, 7)],
        [(8, 8), (8, 8), (2, 4)],
    ],
)
def test_fusing_from_coarse_to_fine_equals_fusing_at_once(sizes) -> None:
    tensors = [torch.rand(2, 4, *size) for size in sizes]
    inputs = [*((torch.zeros(2, 1, 1, 1), tensor) for tensor in tensors[1:]), tensors[0]]
    index = [1] * (len(sizes) - 1)
    expected = layers.CBFuse(index)(*inputs)
    torch.testing.assert_close(PyramidFuse(index)(*inputs), expected)
