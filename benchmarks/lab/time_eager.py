"""Frames per second of a DynamicDet checkpoint in PyTorch, the way its published table has them.

Eager PyTorch, batch 1, half precision on a GPU, no NMS, from an image that is already on the
device. Images leave at each exit by force; a mixture's time is the weighted mean of the two, its
frames per second the inverse of that. Run on CPUs only so far; see ``protocols/v100.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from dyninfer.evaluation.interleaved import quantiles, run_rounds
from dyninfer.exporters.dynamicdet.export import load_model
from dyninfer.exporters.dynamicdet.fold import fold
from dyninfer.exporters.dynamicdet.stages import IMAGES, build_stages

EASY, HARD = ("first", "router", "head"), ("first", "router", "second")
HARD_SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)
_MS_PER_S = 1000


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A DynamicDet checkpoint, NAME.pt.")],
    height: Annotated[int, typer.Option(help="A multiple of the largest stride.")] = 640,
    width: Annotated[int, typer.Option(help="A multiple of the largest stride.")] = 640,
    device: Annotated[str, typer.Option(help="cuda:0, or cpu.")] = "cuda:0",
    half: Annotated[bool, typer.Option(help="Half precision.")] = True,
    folded: Annotated[bool, typer.Option(help="Batch norm and branches folded.")] = True,
    rounds: Annotated[int, typer.Option(min=2, help="Timed runs of each route.")] = 500,
    warm_up: Annotated[int, typer.Option(min=1, help="Runs before.")] = 100,
) -> None:
    """Print milliseconds and frames per second at several shares of hard images.

    Example: python -m dyninfer.benchmarks.lab.time_eager dy-yolov7.pt --height 480
    """
    run = make_run(checkpoint, (height, width), torch.device(device), half=half, folded=folded)
    routes: dict[str, Callable[[], float]] = {
        "easy": lambda: timed_ms(run, EASY, device),
        "hard": lambda: timed_ms(run, HARD, device),
    }
    for _ in range(warm_up):
        for route in routes.values():
            route()
    times = run_rounds(routes, rounds)
    for name, values in times.items():
        seen = quantiles(values)
        print(f"{name}: median {seen.median_ms:.2f} ms, {seen.p25_ms:.2f} to {seen.p75_ms:.2f}")
    easy, hard = (sum(times[name]) / rounds for name in ("easy", "hard"))
    print("hard images   ms     FPS")
    for share in HARD_SHARES:
        mean = (1 - share) * easy + share * hard
        print(f"{share:11.0%} {mean:6.2f} {_MS_PER_S / mean:6.1f}")


def make_run(
    checkpoint: Path, size: tuple[int, int], device: torch.device, *, half: bool, folded: bool
) -> Callable[[tuple[str, ...]], dict[str, Any]]:
    """A function that runs stages on one image of random pixels and gives all their tensors."""
    model = load_model(checkpoint)
    dtype = torch.float16 if half else torch.float32
    stages = build_stages(fold(model) if folded else model, size)
    stages = {name: stage.to(device, dtype) for name, stage in stages.items()}
    image = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(1)).to(device, dtype)

    def run(route: tuple[str, ...]) -> dict[str, Any]:
        tensors: dict[str, Any] = {IMAGES: image}
        with torch.inference_mode():
            for name in (name for name in route if name in stages):  # step 1 has no router
                made = stages[name](*(tensors[read] for read in stages[name].inputs))
                made = made if isinstance(made, tuple) else (made,)
                tensors |= dict(zip(stages[name].outputs, made, strict=True))
                if name == "router":
                    made[0].item()  # the decision is taken on the host, which has to wait for it
        return tensors

    return run


def timed_ms(
    run: Callable[[tuple[str, ...]], object], route: tuple[str, ...], device: str
) -> float:
    """One run, from start to when the device has finished."""
    start = time.perf_counter()
    run(route)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * _MS_PER_S


if __name__ == "__main__":
    typer.run(main)
