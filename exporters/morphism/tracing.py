"""Which channels of a module go together, found by Torch-Pruning in what it computes.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from dyninfer.errors import MissingExtra
from dyninfer.exporters.extras import quiet
from dyninfer.exporters.morphism.student import Student
from dyninfer.exporters.morphism.wiring import NORM, Channels, Layer, Slice
from dyninfer.installing import pip_install

Forward = Callable[[Any, Tensor], Sequence[Tensor]]
SIDE = 128
"""Of the picture that is run; a multiple of all detectors' strides."""


class Traced:
    """A module's dependencies between channels.

    Args:
        model: of convolutions, batch norms and parameters of one channel axis; stays as it is.
        forward: runs the module on a picture (1, 3, 128, 128). Reshapes of channels, as decodes of
            boxes have them, take very long to follow: end before them. Slices of a map are told
            apart; parts of a split are not where they are used in another order, nor are those of
            a concatenation where one of them is also read before it. Check what was chosen.

    Raises:
        MissingExtra: Torch-Pruning is not installed.
    """

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        if find_spec("torch_pruning") is None:
            raise MissingExtra(
                f"this needs Torch-Pruning; install with {pip_install('export', 'prune')}"
            )
        from torch_pruning import DependencyGraph

        # autograd tells what follows from what
        self._model = copy.deepcopy(model).eval().requires_grad_(True)
        self._names = {id(each): name for name, each in self._model.named_modules()}
        self._names |= {id(each): name for name, each in self._model.named_parameters()}
        with torch.enable_grad(), quiet():
            self._graph = DependencyGraph().build_dependency(
                self._model,
                example_inputs=torch.zeros(1, 3, SIDE, SIDE),
                forward_fn=forward,
                verbose=False,
            )

    def widths(self, fixed: Collection[str] = ()) -> dict[str, Channels]:
        """All channels that can be chosen, by the first convolution that makes them.

        ``fixed`` are convolutions whose results keep their channels.
        """
        found: dict[str, Channels] = {}
        seen = set(fixed)
        for name, module in self._model.named_modules():
            plain = isinstance(module, nn.Conv2d) and module in self._graph.module2node
            if plain and name not in seen:
                channels = self._channels(name)
                made = {maker.conv for maker in channels.makers} if channels else {name}
                if channels is not None and not made & seen:
                    found[name] = channels
                seen |= made
        return found

    def importance(self, conv: str) -> Tensor:
        """How much each result of a convolution counts, with all that is coupled to it.

        The mean of the L2 norms of what makes and reads a channel, over the mean of all channels.
        """
        from torch_pruning.pruner.importance import GroupMagnitudeImportance

        scores: Tensor = GroupMagnitudeImportance(p=2)(self._group(conv))
        return scores.detach()

    def _group(self, conv: str) -> Any:
        from torch_pruning import prune_conv_out_channels

        module = self._model.get_submodule(conv)
        assert isinstance(module, nn.Conv2d)
        return self._graph.get_pruning_group(
            module, prune_conv_out_channels, idxs=list(range(module.out_channels))
        )

    def _channels(self, conv: str) -> Channels | None:
        """What goes with the results of a convolution; None where they cannot be chosen."""
        width = len(self._model.get_parameter(f"{conv}.weight"))
        channels = Channels()
        for item in self._group(conv).items:
            layer = item.dep.layer
            reads = self._graph.is_in_channel_pruning_fn(item.dep.pruning_fn)
            name = self._names.get(id(layer))
            if name is None:  # an operation without parameters
                continue
            starts = _starts(zip(item.idxs, item.root_idxs, strict=True), width)
            if starts is None or getattr(layer, "groups", 1) > 1:
                return None
            if isinstance(layer, nn.Conv2d) and not reads and layer.out_channels == width:
                channels.makers.append(Layer(name))
            else:
                channels.further += _slices(layer, name, starts, reads=reads)
        return channels


def _starts(pairs: Iterable[tuple[int, int]], width: int) -> tuple[int, ...] | None:
    """Where the blocks start in which all channels stand in their order, if they do."""
    found = sorted(set(pairs))
    blocks = [found[at : at + width] for at in range(0, len(found), width)]
    if any(block != [(block[0][0] + each, each) for each in range(width)] for block in blocks):
        return None
    return tuple(block[0][0] for block in blocks)


def _slices(
    layer: nn.Module | nn.Parameter, name: str, starts: tuple[int, ...], *, reads: bool
) -> Iterator[Slice]:
    """Of a parameter, of a batch norm, or of a convolution."""
    if isinstance(layer, nn.Parameter):
        yield Slice(name, layer.shape.index(max(layer.shape)), starts)
    elif isinstance(layer, nn.BatchNorm2d):
        yield from (Slice(f"{name}.{part}", 0, starts) for part in NORM)
    else:
        yield Slice(f"{name}.weight", int(reads), starts, reads=reads)
        if not reads:
            yield Slice(f"{name}.bias", 0, starts)


def group_importance(student: Student, width: str) -> dict[str, Tensor]:
    """For :meth:`Student.most_important`: as :meth:`Traced.importance`, for each part of a width.

    Raises:
        InputError: there is no such width.
        MissingExtra: Torch-Pruning is not installed.
    """
    traced = Traced(student.model(), student.forward)
    parts = student.parts(width)
    return {part: traced.importance(each.makers[0].conv) for part, each in parts.items()}
