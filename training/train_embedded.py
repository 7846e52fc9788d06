"""Train the embedded model: ``python -m training.train_embedded --minutes 45 out.pt``.

Run from the root of the repository; needs the extras ``demo`` and ``export``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TimeElapsedColumn

from dyninfer.exporters.dynamicdet.model import DynamicDetector
from training import cascade, router
from training.cascade import Budget, Listener, Report, Start
from training.checkpoint import write
from training.loss import LossWeights
from training.recipe import Recipe


def main(
    out: Annotated[Path, typer.Argument(help="Checkpoint to write.")],
    minutes: Annotated[float, typer.Option(help="Time for step 1, the cascade.")] = 45,
    steps: Annotated[int | None, typer.Option(help="Steps of step 1, instead of a time.")] = None,
    processes: Annotated[int, typer.Option(help="Processes that share step 1.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the weights and of the router's order.")] = 0,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from instead of random weights.")
    ] = None,
    first_scene: Annotated[int, typer.Option(help="Number of the first training scene.")] = 0,
    learning_rate: Annotated[
        float, typer.Option(help="Highest learning rate of step 1.")
    ] = Recipe.learning_rate,
    box_weight: Annotated[float, typer.Option(help="Weight of the boxes' loss.")] = LossWeights.box,
    router_only: Annotated[
        bool, typer.Option("--router-only", help="Skip step 1; --start is its result.")
    ] = False,
    keep_every: Annotated[
        int, typer.Option(help="Steps between snapshots beside OUT; 0 keeps none.")
    ] = 0,
) -> None:
    """Train the cascade, then its router on scenes that are generated on the way."""
    settings = Recipe(learning_rate=learning_rate, loss=LossWeights(box=box_weight))
    out.parent.mkdir(parents=True, exist_ok=True)
    begin = Start(seed, start, first_scene)
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress:
        if router_only:
            model = begin.model().eval().requires_grad_(False)
        else:
            budget = Budget(math.inf if steps else 60 * minutes, steps)
            model = cascade.train(
                settings, budget, processes, begin, _listener(progress, out, keep_every)
            )
            write(model, out.with_suffix(".step1.pt"))
        _train_router(model, settings, seed, progress)
    write(model, out)


def _listener(progress: Progress, out: Path, keep_every: int) -> Listener:
    """Shows the progress of step 1 and keeps snapshots."""
    task = progress.add_task("cascade", total=1.0)

    def listen(report: Report, model: DynamicDetector) -> None:
        progress.update(task, completed=report.progress)
        if report.step % 200 == 0 or report.progress >= 1:
            progress.console.print(
                f"step {report.step}, {report.seconds:.0f} s: loss of the first head "
                f"{report.first_loss:.4f}, of the second {report.second_loss:.4f}"
            )
        if keep_every and report.step % keep_every == 0:
            write(model, out.with_suffix(f".{report.step}.pt"))

    return listen


def _train_router(model: DynamicDetector, settings: Recipe, seed: int, progress: Progress) -> None:
    """Step 2, and what came of it."""
    task = progress.add_task("losses for the router", total=settings.router_scenes)
    evidence = router.gather(model, settings, lambda done: progress.advance(task, done))
    gain = evidence.first - evidence.second
    progress.console.print(
        f"loss: first head {evidence.first.mean():.4f}, second {evidence.second.mean():.4f}, "
        f"median gain {gain.median():.4f}, scenes that gain {(gain > 0).float().mean():.2f}"
    )
    router.train_router(model, evidence, settings, seed)
    easiness = router.easiness_quantiles(model, evidence)
    progress.console.print(f"easiness at 5, 25, 50, 75, 95 %: {easiness}")


if __name__ == "__main__":
    typer.run(main)
