"""A whole dynamic detector in PyTorch, and how it is read from a checkpoint."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dyninfer.errors import CheckpointError
from dyninfer.exporters.dynamicdet import layers
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.plan import Plan, plan_from_shapes
from dyninfer.exporters.dynamicdet.topology import IMAGE, Op, Part, Ref, Row, Topology, recognise
from dyninfer.exporters.dynamicdet.weights import complete, read_weights
from dyninfer.exporters.weights import load_strictly

Features = dict[Ref, Any]  # tensors, and tuples of tensors behind CBLinear


class DynamicDetector(nn.Module):
    """First backbone, router, first head, second backbone and second head.

    Parameter names equal those of the published checkpoints. The methods run one stage each;
    nothing here decides a route. ``notes`` say what of the checkpoint was taken or read in a way
    that a user should know, one line each.
    """

    router: layers.Router | None
    notes: tuple[str, ...] = ()

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.topology = plan.topology
        hidden = plan.router_hidden
        self.router = None if hidden is None else layers.Router(plan.router_channels, hidden)
        for part in Part:
            modules = nn.ModuleList(build_row(row, plan) for row in plan.topology.parts[part])
            setattr(self, part.prefix, modules)

    def run_part(self, part: Part, features: Features, keep: Collection[Ref] = ()) -> Any:
        """Run all rows of ``part`` on ``features``; returns the last row's output.

        What no further row reads and ``keep`` does not name is dropped from ``features`` at once:
        all features of a large image take gigabytes.
        """
        rows = self.topology.parts[part]
        last_reader = {ref: reader for reader, row in enumerate(rows) for ref in row.inputs}
        output = None
        for position, (row, module) in enumerate(
            zip(rows, getattr(self, part.prefix), strict=True)
        ):
            output = features[row.ref] = module(*(features[ref] for ref in row.inputs))
            for ref in {row.ref, *row.inputs}.difference(keep):
                if last_reader.get(ref, -1) <= position:
                    del features[ref]
        return output

    def first(self, images: Tensor) -> Features:
        """What is read of the first backbone's features, for images (N, 3, H, W) in [0, 1], RGB."""
        features: Features = {IMAGE: images}
        read = self.topology.read_by(Part.HEAD, Part.SECOND)
        self.run_part(Part.FIRST, features, {*read, *self.topology.router_inputs})
        return features

    def easiness(self, features: Features) -> Tensor:
        """Easiness (N, 1) in [0, 1] from first-backbone features."""
        if self.router is None:
            raise CheckpointError(f"{self.topology.name} has no router (a step-1 checkpoint)")
        return self.router(self.pooled(features))  # type: ignore[no-any-return]  # untyped torch

    def pooled(self, features: Features) -> Tensor:
        """Global averages of the feature maps that the router reads: (N, router channels).

        Over one axis and then the other: ONNX Runtime adds up what it averages in order, and the
        sum over both axes at once has 18 times the rounding error.
        """
        maps = (features[ref] for ref in self.topology.router_inputs)
        return torch.cat([each.mean(3).mean(2) for each in maps], 1)

    def head(self, features: Features) -> tuple[Tensor, ...]:
        """Raw predictions of the first head, one (N, anchors * (5 + classes), H, W) per level."""
        return self.run_part(Part.HEAD, dict(features))  # type: ignore[no-any-return]

    def second(self, features: Features) -> tuple[Tensor, ...]:
        """Raw predictions of the second head, after the second backbone."""
        features = dict(features)
        rows = self.topology.parts[Part.HEAD2]
        self.run_part(Part.SECOND, features, {ref for row in rows for ref in row.inputs})
        return self.run_part(Part.HEAD2, features)  # type: ignore[no-any-return]

    def detect(self, part: Part) -> layers.Detect:
        """The Detect module of a head: ``Part.HEAD`` or ``Part.HEAD2``."""
        return getattr(self, part.prefix)[-1]  # type: ignore[no-any-return]


def build_row(row: Row, plan: Plan) -> nn.Module:
    """The module of one row, with the widths of ``plan``."""
    single = [_build_single(row, plan) for _ in range(row.repeat)]
    return nn.Sequential(*single) if row.repeat > 1 else single[0]


def _build_single(row: Row, plan: Plan) -> nn.Module:
    cins = [plan.channels(ref) for ref in row.inputs]
    cout = plan.channels(row.ref) if row.op is not Op.DETECT else 0
    match row.op:
        case Op.CONV:
            return layers.ConvBnSiLU(cins[0], cout, row.kernel, row.stride)
        case Op.MAX_POOL:
            return nn.MaxPool2d(2)
        case Op.SPACE_TO_DEPTH:
            return layers.SpaceToDepth2()
        case Op.CONCAT:
            return layers.Concat()
        case Op.UPSAMPLE:
            return nn.Upsample(scale_factor=2.0, mode="nearest")
        case Op.SPPCSPC:
            return layers.SPPCSPC(cins[0], plan.hidden[row.ref], cout)
        case Op.REP_CONV if row.ref in plan.reparameterised:
            merged = nn.Conv2d(cins[0], cout, 3, row.stride, 1)
            return nn.Sequential(OrderedDict(rbr_reparam=merged, silu=nn.SiLU()))
        case Op.REP_CONV:
            return layers.RepConv(cins[0], cout, row.stride)
        case Op.CB_LINEAR:
            return layers.CBLinear(cins[0], plan.splits(row))
        case Op.CB_FUSE:
            return layers.CBFuse(row.split_index)
        case Op.DETECT:
            return layers.Detect(cins, plan.classes, plan.anchors_per_level)


def load_model(checkpoint: Path, config: Path | None = None) -> DynamicDetector:
    """The source model of a checkpoint, unfolded, in float32.

    Raises:
        CheckpointError: the file cannot be read safely or does not fit its topology.
        ConfigError: the YAML is not usable, or the topology is not a published one.
    """
    weights = read_weights(checkpoint)
    topology = read_topology(config) if config else recognise(weights.state)
    model = model_from_state(topology, weights.state)
    model.notes = (*weights.notes, *model.notes)
    return model


def model_from_state(topology: Topology, state: Mapping[str, Tensor]) -> DynamicDetector:
    """Build the model that ``state`` was saved from, in float32 and evaluation mode.

    Loading is strict: every key is used and none is missing, but for those that
    :func:`dyninfer.exporters.dynamicdet.weights.complete` knows.

    Raises:
        CheckpointError: keys are missing or left over, or a shape does not fit; all are named.
    """
    plan = plan_from_shapes(topology, {name: tuple(t.shape) for name, t in state.items()})
    with torch.device("meta"):  # no memory is taken before the shapes are known to fit
        model = DynamicDetector(plan)
    state, model.notes = complete(state, model.state_dict())
    hint = "if the model has a topology of its own, give its YAML as config (--config)"
    load_strictly(model, state, topology.name, hint)
    return model


def random_model(plan: Plan, anchors: Sequence[Sequence[float]], seed: int = 0) -> DynamicDetector:
    """A model with random weights; ``anchors`` are ``w, h, w, h, ...`` in pixels for each level."""
    torch.manual_seed(seed)
    model = DynamicDetector(plan)
    grid = torch.tensor(anchors).reshape(len(anchors), -1, 2)
    for part in (Part.HEAD, Part.HEAD2):
        detect = model.detect(part)
        detect.anchor_grid.copy_(grid[:, None, :, None, None])
        detect.anchors.copy_(grid / torch.tensor(plan.strides)[:, None, None])
        _initialise_biases(detect, plan.strides)
    return model.eval()


def _initialise_biases(detect: layers.Detect, strides: Sequence[int]) -> None:
    """Start from rare objects, so that early training is not spent on the background.

    Prior: about 8 objects in an image of 640 pixels, classes equally likely
    (focal loss, Lin et al. 2017, section 4.1, as YOLO detectors apply it per level).
    """
    for conv, stride in zip(detect.m, strides, strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        bias = conv.bias.data.view(-1, 5 + detect.classes)
        bias[:, 4] = math.log(8 / (640 / stride) ** 2)
        bias[:, 5:] = math.log(0.6 / (detect.classes - 0.99))
