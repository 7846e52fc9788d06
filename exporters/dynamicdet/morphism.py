"""Students of a DynamicDet: see :mod:`dyninfer.exporters.morphism.student`.

Widths alone can be changed, in all that is coupled to them, which Torch-Pruning finds. No block can
be added so that it changes nothing, or dropped: no shortcut leads around one in these topologies,
and a SiLU is no identity.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from dyninfer.errors import InputError
from dyninfer.exporters.dynamicdet.layers import CBLinear
from dyninfer.exporters.dynamicdet.model import DynamicDetector, load_model, model_from_state
from dyninfer.exporters.dynamicdet.plan import plan_from_shapes
from dyninfer.exporters.dynamicdet.topology import Op, Part, Topology
from dyninfer.exporters.morphism.student import Places, Student, write_checkpoint
from dyninfer.exporters.morphism.tracing import SIDE, Traced
from dyninfer.exporters.morphism.wiring import NORM, Channels, Wiring

_HIDDEN = re.compile(r"\.cv[1-6]\.conv$")


@dataclass(frozen=True)
class DynamicDetStudent(Student):
    """A detector's weights by the names of the published checkpoints, and what is connected."""

    topology: Topology

    @classmethod
    def load(cls, path: Path, config: Path | None = None) -> DynamicDetStudent:
        """The student that changes nothing; ``config`` is the YAML of a topology of one's own.

        Raises:
            CheckpointError: the file cannot be read safely or does not fit its topology.
            ConfigError: the YAML is not usable, or the topology is not a published one.
        """
        model = load_model(path, config)
        return cls(model.state_dict(), model.topology)

    def save(self, path: Path) -> None:
        """Write a checkpoint, for the same topology."""
        write_checkpoint(self.state, path)

    def model(self) -> DynamicDetector:
        """The student as a module."""
        return model_from_state(self.topology, self.state)

    @staticmethod
    def forward(model: DynamicDetector, images: Tensor) -> Sequence[Tensor]:
        """The router's easiness, and what both heads predict."""
        features = model.first(images)
        easiness = [] if model.router is None else [model.easiness(features)]
        return [*easiness, *model.head(features), *model.second(features)]

    @cached_property
    def wiring(self) -> Wiring:
        """By the first convolution that makes channels; predictions keep theirs.

        The convolutions within an SPPCSPC have one width, ``hidden``.

        Raises:
            MissingExtra: Torch-Pruning is not installed.
        """
        model = self.model()
        predictions = [
            f"{model.topology.parts[head][-1].prefix}.m.{level}"
            for head in (Part.HEAD, Part.HEAD2)
            for level in range(len(model.detect(head).m))
        ]
        for module in model.modules():
            if isinstance(module, CBLinear):
                module.__class__ = _Sliced
        pools = tuple(f"{row.prefix}." for row in self.topology.rows() if row.op is Op.SPPCSPC)
        traced = Traced(model, self.forward)
        widths: dict[str, dict[str, Channels]] = {}
        for name, channels in traced.widths([*predictions, "router.layer2"]).items():
            width = _HIDDEN.sub(".hidden", name) if name.startswith(pools) else name
            widths.setdefault(width, {})[name] = channels
        return Wiring({}, widths)

    def _chosen(self, width: str, places: Places) -> DynamicDetStudent:
        """Checked: what the library found is not believed, or weights would be inherited wrongly.

        Raises:
            InputError: the student does not compute what it should.
        """
        state = dict(self.state)
        for part, channels in self.parts(width).items():
            dropped = set(range(channels.width(state))) - set(places[part])
            state |= channels.silenced(state, sorted(dropped))
        student = super()._chosen(width, places)
        student = replace(student, state=student._with_identities())
        expected = self._answers(state)
        for one, other in zip(self._answers(student.state), expected, strict=True):
            if not torch.allclose(one, other, rtol=1e-5, atol=1e-6):
                raise InputError(
                    f"the channels of {width} cannot be chosen: what is coupled to them in "
                    f"{self.topology.name} was not found rightly; choose another width"
                )
        return student

    def _answers(self, state: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """On noise; in float64, since a channel of many changes little."""
        images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            model = model_from_state(self.topology, state).double()
            return self.forward(model, images.double())

    def _with_identities(self) -> dict[str, Tensor]:
        """With what a RepConv of as many channels as it reads has beside: switched off."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state.items()}
        plan, state = plan_from_shapes(self.topology, shapes), dict(self.state)
        for row in self.topology.rows():
            if row.op is not Op.REP_CONV or row.ref in plan.reparameterised or row.stride > 1:
                continue
            name, channels = f"{row.prefix}.rbr_identity", plan.channels(row.ref)
            if channels == plan.channels(row.inputs[0]):
                off = {f"{name}.{part}": torch.zeros(channels) for part in NORM}
                off[f"{name}.running_var"] += 1
                state = off | {f"{name}.num_batches_tracked": torch.tensor(0)} | state
        return state


class _Sliced(CBLinear):
    """With slices in the place of a split, as :class:`Traced` follows them."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        ends = accumulate(self.splits)
        results = self.conv(x)
        return tuple(
            results[:, end - size : end] for size, end in zip(self.splits, ends, strict=True)
        )
