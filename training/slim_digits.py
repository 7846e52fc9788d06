"""The base that ``dyninfer slim`` is shown on: a generous GFLV2 detector of the demo's digits.

    python -m training.slim_digits digits/ --minutes 25

Writes labelled scenes to ``digits/train`` and ``digits/held-out``, the base's checkpoint to
``digits/base.pt``, its structure to ``digits/base.txt``; docs/students.md goes on from there. Run
from the root of the repository; needs the extras ``demo``, ``eval`` and ``export``.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import Progress, TimeElapsedColumn
from torch import nn

from dyninfer.demo.scenes import ANNOTATIONS_FILE, CLASS_NAMES, SceneSource, write_scene_files
from dyninfer.evaluation.dataset import load_samples
from dyninfer.exporters.slim.judging import precision_of
from dyninfer.exporters.slim.learning import BATCH, Budget, teach
from dyninfer.exporters.slim.pictures import Pictures
from dyninfer.exporters.zendet.backbone import draw_backbone
from dyninfer.exporters.zendet.detector import Detector, HeadShape
from dyninfer.exporters.zendet.export import image_spec
from dyninfer.search.structure import Block, Structure

SIDE = 128
SETS = ("train", "held-out")
STRUCTURE = Structure(
    (
        Block(3, 16, 3, 2),
        Block(16, 64, 3, 2, 3, 32),
        Block(64, 96, 3, 2, 5, 48),
        Block(96, 160, 3, 2, 6, 64),
        Block(160, 256, 3, 2, 4, 96),
    )
)
HEAD = HeadShape(channels=48, head=64, depth=1, columns=10, bins=9, kept=4, hidden=32)
_RARE = 0.01  # what a head says at first of every class


def build(seed: int) -> Detector:
    """The base with random weights."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of what torch draws when modules are made
    model = Detector(STRUCTURE, HEAD)
    draw_backbone(model.backbone, generator)
    # the joint score is a product, whose other factor starts at a half
    bias = model.bbox_head.gfl_cls.bias
    assert bias is not None
    nn.init.constant_(bias, -math.log((1 - 2 * _RARE) / (2 * _RARE)))
    nn.init.normal_(model.bbox_head.gfl_cls.weight, std=0.01, generator=generator)
    return model


def write_scenes(folder: Path, progress: Progress, train: int, held_out: int) -> None:
    """Labelled scenes of both splits, in COCO's format."""
    sources = SceneSource("train", SIDE, crowded=True), SceneSource("held_out", SIDE, crowded=True)
    for source, name, count in zip(sources, SETS, (train, held_out), strict=True):
        task = progress.add_task(f"{name} scenes", total=count)
        write_scene_files(folder / name, source, range(count), partial(progress.advance, task))


def main(
    folder: Annotated[Path, typer.Argument(help="Where scenes, checkpoint and structure go.")],
    minutes: Annotated[float, typer.Option(help="Time for the training.")] = 25,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of a time.")] = None,
    train: Annotated[int, typer.Option(help="Scenes to learn from.")] = 6000,
    held_out: Annotated[int, typer.Option(help="Scenes to measure on.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of weights and of the order of the scenes.")] = 0,
) -> None:
    """Write the scenes, train the base on them, and say how good it is."""
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress:
        if not (folder / "held-out" / ANNOTATIONS_FILE).exists():
            write_scenes(folder, progress, train, held_out)
        model, spec = build(seed), image_spec((SIDE, SIDE))
        sets = []
        for name in SETS:
            files = sorted((folder / name).glob("*.png"))
            samples = load_samples(files, folder / name / ANNOTATIONS_FILE, CLASS_NAMES)
            sets.append(Pictures(samples.items, spec))
        budget = Budget(steps, math.inf if steps else 60 * minutes)
        task = progress.add_task("base", total=1.0)
        losses: list[float] = []

        def on_step(loss: float) -> None:
            losses.append(loss)
            progress.update(task, completed=budget.progress)
            if len(losses) % 100 == 0:
                mean = sum(losses[-100:]) / 100
                progress.console.print(f"step {len(losses)}: loss {mean:.4f}", highlight=False)

        teach(model, None, sets[0].batches(BATCH, seed), budget, on_step)
    ap = precision_of(model, sets[1], CLASS_NAMES)
    print(f"base: {len(losses)} steps, AP {100 * ap:.1f} on {len(sets[1].samples)} held-out scenes")
    torch.save({"state_dict": model.state_dict()}, folder / "base.pt")
    (folder / "base.txt").write_text(STRUCTURE.text, encoding="utf-8")
    (folder / "names.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
