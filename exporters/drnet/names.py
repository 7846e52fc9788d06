"""Names of parameters, MindSpore's and PyTorch's in all their spellings, as one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

from dyninfer.errors import CheckpointError
from dyninfer.exporters.weights import Naming
from dyninfer.plain_text import some

ValueT = TypeVar("ValueT")

# what trainings in MindSpore save beside the weights: an optimizer's averages and counts
_OPTIMIZERS = r"moments?\d*|moment[12]|accum|accumulation"
_COUNTS = r"learning_rate|momentum|global_step|epoch_num|step_num|scale_sense|beta[12]_power"
NAMING = Naming(
    family="DRNet",
    first="layer1.0.",
    own=re.compile(
        rf"(?!(?:{_OPTIMIZERS})\.)((?:[^.]+\.)*?)(?:layer1\.0\.conv1\.weight|features\.0\.)"
    ),
    foreign=rf"(?:{_OPTIMIZERS})\..*|{_COUNTS}|(?:current|last_overflow)_iterator_step"
    r"|.*\.num_batches_tracked",
)
_PARTS = {
    "down_sample_layer": "downsample",
    "end_point": "fc",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_NORM = re.compile(
    r"(?P<layer>(?:.*\.)?(?:bn\d+|downsample\.1))"
    r"(?:\.(?:bns?[._])?(?P<set>\d{1,3}))?\.(?P<value>weight|bias|running_mean|running_var)"
)
_VALUES = ("weight", "bias", "running_mean", "running_var")


def canonical(state: Mapping[str, ValueT]) -> dict[str, ValueT]:
    """The same values by PyTorch's names; batch norm set j of a layer is ``bn1.bn.j.weight``.

    A batch norm without sets counts as set 0.

    Raises:
        CheckpointError: two names are the same parameter's.
    """
    found: dict[str, ValueT] = {}
    for name, value in state.items():
        known = _canonical(name)
        if known in found:
            raise CheckpointError(f"{name} and another name in the checkpoint both mean {known}")
        found[known] = value
    return found


def _canonical(name: str) -> str:
    name = ".".join(_PARTS.get(part, part) for part in name.split("."))
    if norm := _NORM.fullmatch(name):
        return f"{norm['layer']}.bn.{int(norm['set'] or 0)}.{norm['value']}"
    return name


def count_sets(names: Iterable[str]) -> int:
    """How many sets every batch norm has, by canonical names.

    Raises:
        CheckpointError: there is none, or a layer lacks a set, or part of one, that others have.
    """
    found: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for norm in filter(None, map(_NORM.fullmatch, names)):
        found[norm["layer"]].add((int(norm["set"] or 0), norm["value"]))
    count = max((1 + index for layer in found.values() for index, _ in layer), default=0)
    if not count:
        raise CheckpointError("the checkpoint holds no batch norm (bn1, bn2, ...)")
    missing = [
        f"{layer} lacks {value} of set {index}"
        for layer, values in found.items()
        for index in range(count)
        for value in _VALUES
        if (index, value) not in values
    ]
    if missing:
        raise CheckpointError(
            f"every batch norm needs the same {count} sets, one for each resolution, but "
            f"{some(missing, 5)}"
        )
    return count
