"""The baselines that there are, by name. Cheap to import: a command line's help lists them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from dyninfer.errors import InputError

SINGLE_GRAPH = "single-graph-if"
LAST_EXIT = "always-last-exit"
NAIVE = "naive"
EAGER = "pytorch-eager"
FOLDED = "pytorch-folded"
COMPILED = "torch-compile"
IN_PYTORCH = frozenset({EAGER, FOLDED, COMPILED})
ALL = "all"
ONNX_SUFFIX = ".onnx"

NAMES: Mapping[str, str] = {
    SINGLE_GRAPH: "the same stages in one ONNX graph with an If, ONNX Runtime's default options",
    LAST_EXIT: "the last exit or branch alone, without what decides and without earlier heads; "
    "dyninfer's own engines",
    NAIVE: "the same stages in ordinary ONNX Runtime sessions, NumPy arrays between them",
    EAGER: "the PyTorch model as it comes from the checkpoint",
    FOLDED: "the PyTorch model, batch norm and branches folded into the convolutions",
    COMPILED: "torch.compile of the folded PyTorch model, compile time not counted",
}
"""Name -> what it is. Any ONNX detector can stand beside them, by its path."""


def is_onnx_file(name: str) -> bool:
    """Whether a baseline is meant as a detector's file."""
    return name.lower().endswith(ONNX_SUFFIX)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The baselines that are meant, each once, in the order they were named.

    Args:
        names: keys of :data:`NAMES`, ``all`` of them, paths that end in ``.onnx``.

    Raises:
        InputError: a name is unknown (the nearest known one is told), or a file is not there.
    """
    chosen: list[str] = []
    for name in names:
        if is_onnx_file(name):
            if not Path(name).is_file():
                raise InputError(f"{name} is not a file; expected the path of an ONNX detector")
        elif name != ALL and name not in NAMES:
            near = difflib.get_close_matches(name, [*NAMES, ALL], n=1, cutoff=0)
            raise InputError(
                f"baseline {name!r} is unknown, nearest is {near[0]!r}; expected "
                f"{', '.join(NAMES)}, {ALL}, or the path of an {ONNX_SUFFIX} file"
            )
        chosen += NAMES if name == ALL else [name]
    return tuple(dict.fromkeys(chosen))
