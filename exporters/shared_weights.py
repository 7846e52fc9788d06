"""Weights that stages have in common, moved into one file beside them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import onnx_ir as ir

from dyninfer.bundle.manifest import Stage, StoredFile
from dyninfer.bundle.writing import write_stage_file
from dyninfer.exporters.graphs import closed

WEIGHTS_FILE = "weights.bin"
_LEAST_BYTES = 1024
"""Smaller tensors stay in their stage: to say where they are would take as much."""
_ALIGNMENT = 64


def share_weights(folder: Path, stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """Move initializers that several stages hold with the same values into one file.

    The stages' files, which lie in one folder of ``folder``, are written again; results stay the
    same to the last bit.

    Args:
        folder: of the bundle.
        stages: by name, each with its own file that holds all of its weights.

    Returns:
        The stages with their new hashes, and ``weights`` where something was moved.

    Raises:
        OSError: a file cannot be written.
    """
    models = {name: ir.load(folder / stage.file) for name, stage in stages.items()}
    held = {name: _large(model.graph) for name, model in models.items()}
    counts = Counter(key for keys in held.values() for key in set(keys.values()))
    common = {key for key, count in counts.items() if count > 1}
    if not common:
        return dict(stages)
    place = PurePosixPath(next(iter(stages.values())).file).parent
    content, offsets = bytearray(), {}
    for name, model in models.items():
        for initializer, key in held[name].items():
            value = model.graph.initializers[initializer]
            tensor = value.const_value
            if key not in common or tensor is None:
                continue
            if key not in offsets:
                content += bytes(-len(content) % _ALIGNMENT)
                offsets[key] = len(content)
                content += tensor.tobytes()
            value.const_value = ir.ExternalTensor(
                WEIGHTS_FILE,
                offsets[key],
                tensor.nbytes,
                tensor.dtype,
                shape=tensor.shape,  # type: ignore[arg-type]  # its own class
                name=initializer,
                base_dir=folder / place,
            )
    file = str(place / WEIGHTS_FILE)
    weights = StoredFile(file=file, sha256=write_stage_file(folder, file, bytes(content)))
    return {
        name: _written(
            folder, stage, models[name], weights if common & {*held[name].values()} else None
        )
        for name, stage in stages.items()
    }


def _large(graph: ir.Graph) -> dict[str, tuple[str, str]]:
    """Element type and hash of every initializer that is worth moving, by name."""
    return {
        name: (str(tensor.dtype), hashlib.sha256(tensor.tobytes()).hexdigest())
        for name, value in graph.initializers.items()
        if (tensor := value.const_value) is not None and tensor.nbytes >= _LEAST_BYTES
    }


def _written(folder: Path, stage: Stage, model: ir.Model, weights: StoredFile | None) -> Stage:
    if weights is None:
        return stage
    data = closed(model).SerializeToString()
    sha256 = write_stage_file(folder, stage.file, data)
    return stage.model_copy(update={"sha256": sha256, "weights": weights})
