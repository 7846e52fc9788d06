"""Average precision of the embedded model on held-out scenes, at both exits and between.

``python -m training.evaluate CHECKPOINT numbers.json``, from the root of the repository.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dyninfer.demo.scenes import CLASS_NAMES, Scene, SceneSource
from dyninfer.evaluation.coco import AveragePrecision, Truth, average_precision
from dyninfer.evaluation.router_quality import lowest
from dyninfer.exporters.dynamicdet.model import DynamicDetector, model_from_state
from dyninfer.exporters.dynamicdet.stages import HeadStage
from dyninfer.exporters.dynamicdet.topology import Part, published
from dyninfer.exporters.safe_load import load_checkpoint
from dyninfer.results.answers import Detections
from dyninfer.results.postprocess import EVALUATION
from training.batches import collate
from training.cascade import losses_of_images
from training.loss import LossWeights

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Outcome:
    """One scene through both exits; losses are those of training."""

    truth: Truth
    easy: Detections
    hard: Detections
    easiness: float
    difficulty: float
    easy_loss: float
    hard_loss: float


@torch.no_grad()
def run_scenes(
    model: DynamicDetector, size: int, count: int, batch_size: int = 20
) -> list[Outcome]:
    """Run the first ``count`` held-out scenes of ``size`` pixels through both exits."""
    source = SceneSource("held_out", size)
    outcomes: list[Outcome] = []
    starts = range(0, count, batch_size)
    for start in track(starts, "held-out scenes", console=Console(stderr=True)):
        scenes = source.scenes(range(start, min(start + batch_size, count)))
        outcomes += _outcomes(model, scenes)
    return outcomes


def _outcomes(model: DynamicDetector, scenes: Sequence[Scene]) -> list[Outcome]:
    batch = collate(scenes)
    features = model.first(batch.images)
    easiness = model.easiness(features)[:, 0].tolist()
    columns: dict[Part, list[Detections]] = {}
    losses: dict[Part, list[float]] = {}
    for part, levels in ((Part.HEAD, model.head(features)), (Part.HEAD2, model.second(features))):
        columns[part] = _detections(model, part, levels, scenes[0].image.shape[:2])
        losses[part] = losses_of_images(model, part, levels, batch.targets, LossWeights()).tolist()
    return [
        Outcome(
            Truth(scene.boxes_xyxy, scene.class_ids),
            columns[Part.HEAD][image],
            columns[Part.HEAD2][image],
            easiness[image],
            scene.difficulty,
            losses[Part.HEAD][image],
            losses[Part.HEAD2][image],
        )
        for image, scene in enumerate(scenes)
    ]


def _detections(
    model: DynamicDetector, part: Part, levels: Sequence[Tensor], size: tuple[int, ...]
) -> list[Detections]:
    """Decode and suppress as the exported stages and the runtime do."""
    boxes, scores = HeadStage(model, part, (size[0], size[1])).decode(levels)
    kept = (EVALUATION(*pair) for pair in zip(boxes.numpy(), scores.numpy(), strict=True))
    return [Detections(*found, tuple(CLASS_NAMES[i] for i in found[2])) for found in kept]


def mixed(outcomes: Sequence[Outcome], hard: npt.NDArray[np.bool_]) -> AveragePrecision:
    """Average precision when the scenes marked ``hard`` take the second exit."""
    found = [o.hard if is_hard else o.easy for o, is_hard in zip(outcomes, hard, strict=True)]
    return average_precision([o.truth for o in outcomes], found, len(CLASS_NAMES))


def curve(outcomes: Sequence[Outcome], share: float, seeds: int) -> dict[str, Any]:
    """AP at a share of hard scenes, chosen by the router and in ways to compare it with.

    ``oracle_by_loss`` sends on what gains most in training loss, which needs the ground truth;
    ``by_difficulty`` what was generated as most difficult.
    """
    easiness = np.array([o.easiness for o in outcomes])
    gain = np.array([o.easy_loss - o.hard_loss for o in outcomes])
    difficulty = np.array([o.difficulty for o in outcomes])
    random = [
        mixed(outcomes, lowest(np.random.default_rng(seed).random(len(outcomes)), share)).ap or 0.0
        for seed in range(seeds)
    ]
    return {
        "hard_share": share,
        "routed": mixed(outcomes, lowest(easiness, share)).ap,
        "random_mean": float(np.mean(random)),
        "random_std": float(np.std(random)),
        "oracle_by_loss": mixed(outcomes, lowest(-gain, share)).ap,
        "by_difficulty": mixed(outcomes, lowest(-difficulty, share)).ap,
    }


def numbers(outcomes: Sequence[Outcome], seeds: int) -> dict[str, Any]:
    """Everything the model card states, ready for JSON."""
    easiness = np.array([o.easiness for o in outcomes])
    difficulty = np.array([o.difficulty for o in outcomes])
    nowhere = np.zeros(len(outcomes), bool)
    thirds = [(0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.01)]
    return {
        "scenes": len(outcomes),
        "objects": sum(len(o.truth.class_ids) for o in outcomes),
        "easy": asdict(mixed(outcomes, nowhere)),
        "hard": asdict(mixed(outcomes, ~nowhere)),
        "curve": [curve(outcomes, share, seeds) for share in SHARES],
        "easiness_quantiles": {str(q): float(np.quantile(easiness, q)) for q in QUANTILES},
        "easiness_difficulty_correlation": float(np.corrcoef(easiness, difficulty)[0, 1]),
        "by_difficulty": [
            _band([o for o in outcomes if low <= o.difficulty < high]) for low, high in thirds
        ],
    }


def _band(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    nowhere = np.zeros(len(outcomes), bool)
    return {
        "scenes": len(outcomes),
        "easy": mixed(outcomes, nowhere).ap,
        "hard": mixed(outcomes, ~nowhere).ap,
        "mean_easiness": float(np.mean([o.easiness for o in outcomes])),
    }


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of training.checkpoint.")],
    out: Annotated[Path | None, typer.Argument(help="JSON file; else standard output.")] = None,
    scenes: Annotated[int, typer.Option(help="Held-out scenes.")] = 1000,
    size: Annotated[int, typer.Option(help="Side of the scenes in pixels.")] = 192,
    seeds: Annotated[int, typer.Option(help="Random choices that are averaged.")] = 10,
) -> None:
    """Evaluate the weights as they are stored, that is rounded to half precision."""
    model = model_from_state(published("dy-yolov7"), load_checkpoint(checkpoint)["model"])
    text = json.dumps(numbers(run_scenes(model, size, scenes), seeds), indent=2)
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
