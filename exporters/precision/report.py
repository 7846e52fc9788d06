"""What other precisions cost: figures of a comparison with float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dyninfer.bundle.manifest import Precision
from dyninfer.exporters.parity import Flips


@dataclass(frozen=True)
class TensorError:
    """One output of one converted stage that is fed what float32 stages computed.

    ``max_rel`` is the largest error over the largest value, ``mean_rel`` the mean error over the
    mean magnitude; ``deviation`` is that of ``deviation.py``, as a mean over pictures.
    """

    stage: str
    tensor: str
    max_abs: float
    max_rel: float
    mean_rel: float
    deviation: float


@dataclass(frozen=True)
class ExitError:
    """One way with all its stages converted, on whole pictures.

    Errors are over the boxes that float32 gives at least the default confidence, or over a
    classifier's confidences; None where there are none. ``disagreement`` is the task's loss between
    both answers, averaged over pictures: 1 - F1 of detections, or the share of pictures whose best
    class differs. Precisions are COCO's in [0, 1], None without labels.
    """

    exit_index: int
    boxes: int
    score_error_mean: float | None
    score_error_max: float | None
    box_error_mean_px: float | None
    box_error_max_px: float | None
    disagreement: float | None
    ap_fp32: float | None
    ap_converted: float | None


@dataclass(frozen=True)
class PrecisionReport:
    """What converted stages do to a bundle's results.

    Attributes:
        precision: of every stage.
        stages_sha256: hash of every stage's file, converted or not.
        kept_float: stage -> layers that stayed in float32 for accuracy.
        tensors: errors of every converted stage on its own.
        exits: errors at the end of every way, all conversions together.
        flips: router or chooser -> decisions that differ.
        pictures: how many were compared.
    """

    precision: Mapping[str, Precision]
    stages_sha256: Mapping[str, str]
    kept_float: Mapping[str, tuple[str, ...]]
    tensors: tuple[TensorError, ...]
    exits: tuple[ExitError, ...]
    flips: Mapping[str, Flips]
    pictures: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "precision": {name: value.value for name, value in self.precision.items()},
            "stages_sha256": dict(self.stages_sha256),
            "kept_float": {name: list(kept) for name, kept in self.kept_float.items()},
            "pictures": self.pictures,
            "tensors": [asdict(error) for error in self.tensors],
            "exits": [asdict(error) for error in self.exits],
            "flips": {name: flips.to_dict() for name, flips in self.flips.items()},
        }
