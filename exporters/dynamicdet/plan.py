"""The widths of a model: read from a checkpoint's shapes, or taken from nominal numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dyninfer.errors import CheckpointError
from dyninfer.exporters.dynamicdet.topology import IMAGE, Op, Part, Ref, Row, Topology
from dyninfer.plain_text import some

Shapes = Mapping[str, tuple[int, ...]]


@dataclass
class Plan:
    """Widths of every row of a topology.

    ``out`` holds output channels of the rows that have weights, and of others once they were asked
    for; ``hidden`` the inner width of SPPCSPC rows; ``reparameterised`` the RepConv rows whose
    branches were already merged. ``router_hidden`` is None for a model without a router.
    """

    topology: Topology
    out: dict[Ref, int] = field(default_factory=dict)
    hidden: dict[Ref, int] = field(default_factory=dict)
    reparameterised: set[Ref] = field(default_factory=set)
    classes: int = 80
    anchors_per_level: int = 3
    router_hidden: int | None = None
    _strides: dict[Ref, int] = field(default_factory=dict)

    def channels(self, ref: Ref) -> int:
        """Output channels of ``ref``; of a CBLinear, all its splits together."""
        if ref == IMAGE:
            return 3
        if ref not in self.out:  # kept, or chains of Concat would take exponential time
            self.out[ref] = self._derive_channels(self.topology.row(ref))
        return self.out[ref]

    def _derive_channels(self, row: Row) -> int:
        if row.op is Op.CONCAT:
            return sum(self.channels(source) for source in row.inputs)
        if row.op is Op.SPACE_TO_DEPTH:
            return 4 * self.channels(row.inputs[0])
        if row.op is Op.CB_LINEAR:
            return sum(self.splits(row))
        return self.channels(row.inputs[-1])

    def splits(self, row: Row) -> tuple[int, ...]:
        """Split widths of a CBLinear: each is as wide as the feature it is added to."""
        widths: dict[int, int] = {}
        for fuse in self.topology.rows():
            if fuse.op is Op.CB_FUSE:
                for ref, split in zip(fuse.inputs[:-1], fuse.split_index, strict=True):
                    if ref == row.ref:
                        widths[split] = self.channels(fuse.inputs[-1])
        if sorted(widths) != list(range(len(widths))):
            raise CheckpointError(
                f"the splits of {row.ref} that are used are {sorted(widths)}, with a gap; "
                "its split sizes cannot be told from the weights"
            )
        return tuple(widths[index] for index in range(len(widths)))

    def stride(self, ref: Ref) -> int:
        """How many image pixels one cell of ``ref`` covers in each direction."""
        if ref == IMAGE:
            return 1
        if ref not in self._strides:
            row = self.topology.row(ref)
            factor = 2 if row.op in (Op.MAX_POOL, Op.SPACE_TO_DEPTH) else row.stride**row.repeat
            below = self.stride(row.inputs[-1])
            self._strides[ref] = below // 2 if row.op is Op.UPSAMPLE else below * int(factor)
        return self._strides[ref]

    def strides_of(self, head: Part) -> tuple[int, ...]:
        """Strides of a head's detection levels, in the order of its inputs."""
        detect = self.topology.parts[head][-1]
        return tuple(self.stride(ref) for ref in detect.inputs)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the first head's detection levels."""
        return self.strides_of(Part.HEAD)

    @property
    def largest_stride(self) -> int:
        """What both sides of an image must be multiples of."""
        return max(self.stride(row.ref) for row in self.topology.rows())

    @property
    def router_channels(self) -> int:
        """Length of the vector of averages that the router reads."""
        return sum(self.channels(ref) for ref in self.topology.router_inputs)


def _width_keys(row: Row) -> tuple[tuple[str, ...], ...]:
    """For each number needed to build ``row``: the parameter names it may be read from."""
    first = f"{row.prefix}.0" if row.repeat > 1 else row.prefix
    by_op: dict[Op, tuple[tuple[str, ...], ...]] = {
        Op.CONV: ((f"{first}.conv.weight",),),
        Op.CB_LINEAR: ((f"{row.prefix}.conv.weight",),),
        Op.SPPCSPC: ((f"{row.prefix}.cv7.conv.weight",), (f"{row.prefix}.cv1.conv.weight",)),
        Op.REP_CONV: ((f"{row.prefix}.rbr_dense.0.weight", f"{row.prefix}.rbr_reparam.weight"),),
        Op.DETECT: ((f"{row.prefix}.m.0.weight",), (f"{row.prefix}.anchors",)),
    }
    return by_op.get(row.op, ())


def plan_from_shapes(topology: Topology, shapes: Shapes) -> Plan:
    """Read every width from the shapes of a state dict.

    Raises:
        CheckpointError: parameters that determine a width are missing; all are named.
    """
    missing = [
        " or ".join(names)
        for row in topology.rows()
        for names in _width_keys(row)
        if not any(name in shapes for name in names)
    ]
    if missing:
        raise CheckpointError(
            f"the checkpoint lacks {len(missing)} of the parameters of {topology.name}: "
            f"{some(missing, 5)}"
        )
    _check_ranks(topology, shapes)
    plan = Plan(topology)
    for row in topology.rows():
        keys = _width_keys(row)
        if not keys:
            continue
        weight = next(shapes[name] for name in keys[0] if name in shapes)
        if row.op is Op.DETECT:
            plan.anchors_per_level = shapes[keys[1][0]][1]
            plan.classes = max(1, weight[0] // plan.anchors_per_level - 5)
            continue
        plan.out[row.ref] = weight[0]
        if row.op is Op.SPPCSPC:
            plan.hidden[row.ref] = shapes[keys[1][0]][0]
        if row.op is Op.REP_CONV and keys[0][1] in shapes:
            plan.reparameterised.add(row.ref)
    for row in topology.rows():  # in order, or a long chain of rows would recurse as deep
        plan.stride(row.ref)
        if row.op not in (Op.CB_LINEAR, Op.DETECT):
            plan.channels(row.ref)
    if any(name.startswith("router.") for name in shapes):
        plan.router_hidden = shapes.get("router.layer1.weight", (plan.router_channels // 4,))[0]
    return plan


def _check_ranks(topology: Topology, shapes: Shapes) -> None:
    """Refuse shapes that no width can be read from, naming them."""
    names = [name for row in topology.rows() for keys in _width_keys(row) for name in keys]
    wrong = [
        f"{name} is {shapes[name]}, expected {axes} axes"
        for name in (*names, "router.layer1.weight")
        for axes in (3 if name.endswith(".anchors") else 4,)
        if name in shapes and (len(shapes[name]) != axes or 0 in shapes[name])
    ]
    if wrong:
        raise CheckpointError(
            f"the checkpoint does not fit {topology.name}: {some(wrong, 5)}, none of length 0"
        )


def plan_from_table(
    topology: Topology,
    width: Callable[[Part, int], int] = lambda _, channels: channels,
    classes: int = 80,
) -> Plan:
    """Widths from the topology's nominal channels, each mapped by ``width(part, channels)``."""
    plan = Plan(topology, classes=classes)
    for row in topology.rows():
        if row.channels and row.op is not Op.CB_LINEAR:
            assert row.ref.part is not None
            plan.out[row.ref] = width(row.ref.part, row.channels[0])
            if row.op is Op.SPPCSPC:
                plan.hidden[row.ref] = plan.out[row.ref]
    plan.router_hidden = max(1, plan.router_channels // 4)
    return plan
