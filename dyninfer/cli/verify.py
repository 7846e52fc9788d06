"""``dyninfer verify``: every stage, way and decision against the source model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.folder import PICTURES, Bundle
from dyninfer.cli.common import (
    built_in_photos,
    expand_sources,
    flipped,
    print_json,
    progress_bar,
    stdout,
    warn,
)
from dyninfer.cli.options import BundleArgument, EngineOptions, JsonOption, with_option_groups
from dyninfer.cli.verify_engines import verify_engines
from dyninfer.errors import BundleError, VerificationError
from dyninfer.exporters.extras import require_export_extra, return_memory
from dyninfer.exporters.sources import find_sources
from dyninfer.images.pictures import read_image
from dyninfer.plain_text import counted
from dyninfer.runtime.engine_choice import EngineChoice
from dyninfer.runtime.opening import load

if TYPE_CHECKING:
    from dyninfer.exporters.parity import Parity


_ON_CPU = EngineChoice("cpu")


@with_option_groups
def verify(
    engines: EngineOptions,
    bundle: BundleArgument,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--source",
            "--checkpoint",
            "-s",
            help="The checkpoint, or a folder that contains it; may be repeated. Default: a file "
            "of its name here or beside the bundle.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The YAML that was given to the export, if any.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", "-i", help="Pictures or folders. Default: the built-in photos."),
    ] = None,
    random_tensors: Annotated[
        int | None,
        typer.Option(
            "--random", min=0, help="Number of noise tensors beside the pictures. Default: 4."
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            help="What is in the pictures, as for **dyninfer eval**; with --backend or "
            "--precision adds AP, or of a classifier top-1.",
        ),
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(
            metavar="LIMITS",
            help="The most that engines may lose, as for **dyninfer build**, such as "
            "ap=0.3,flips=1%,differ=2%. Default: that of the build, if it had to pass one.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare every stage, way and decision with the source model, and write parity.json.

    Exit status 1 when a tensor is beyond its tolerance: boxes 0.001 pixels, easiness 0.00001, class
    scores 0.0001, logits 0.0002; of their largest value a chooser's scores 0.00001, features
    0.0001; or five times the source's own rounding error, where that is larger.

    With --backend or --precision the engines that **dyninfer build** made are compared with the
    bundle's own files on ONNX Runtime: tensors, decisions, detections and, with labels, AP. Exit
    status 1 beyond the gate, or where a tensor is not finite.

    Example: **dyninfer verify dy-yolov7.dyn --source dy-yolov7.pt --images photos/**

    Example: **dyninfer verify dy-yolov7.dyn --precision int8 --images photos/ --gate flips=1%**
    """
    require_export_extra("dyninfer verify")
    of_engines = engines.backend or engines.precision or gate or annotations
    if of_engines and (source or config or random_tensors is not None):
        raise typer.BadParameter(
            "--source, --config and --random go with the source model; with --backend, "
            "--precision, --gate or --annotations engines are compared with the bundle's own files"
        )
    photos = expand_sources(images) if images else built_in_photos()
    if of_engines:
        verify_engines(bundle, photos, annotations, gate, engines, json_output=json_output)
        return
    noise = 4 if random_tensors is None else random_tensors
    parity, document = run_verification(bundle, source or (), config, photos, noise, engines)
    if json_output:
        print_json(document)
    else:
        _print_table(parity)
    conclude(bundle, parity, tell=not json_output)


def run_verification(
    path: Path,
    sources: Sequence[Path],
    config: Path | None,
    photos: Sequence[Path],
    random_tensors: int,
    engines: EngineChoice = _ON_CPU,
    *,
    batch: int = 2,
) -> tuple[Parity, Mapping[str, Any]]:
    """Verify a bundle under a progress bar and write its parity.json; also what is in that.

    ``sources`` are files or folders; what is not among them is searched for near by. ``batch`` is
    the largest number of images at once.
    """
    from dyninfer.exporters.families import family_of, source_stages
    from dyninfer.exporters.verify import verify as compare

    with progress_bar() as progress, load(path, **asdict(engines)) as detector:
        task = progress.add_task("reading the source", total=len(photos) + random_tensors)
        family_of(detector.bundle)  # or a source would be asked for in vain
        for engine in detector.engines.values():
            engine.spare_memory()  # the source's features stand beside them
        checkpoints = find_sources(detector.manifest, path, sources)
        return_memory()
        stages = source_stages(detector.bundle, checkpoints, config)
        return_memory()
        pictures = [read_image(photo) for photo in photos]
        progress.update(task, description="comparing")
        parity = compare(
            detector,
            stages,
            pictures,
            random_tensors,
            progress=lambda samples: progress.advance(task, samples),
            batch=batch,
        )
        document = parity.to_dict(detector.manifest)
        _write(detector.bundle, document)
    return parity, document


def _write(bundle: Bundle, document: Mapping[str, Any]) -> None:
    """Keep what was measured; where the bundle cannot be written, as an installed one, say so.

    The comparison holds all the same, and nothing that follows needs the file.
    """
    try:
        bundle.write_parity(document)
    except BundleError as error:
        warn(f"{error}; what was measured is shown, but not kept")


def tell_pictures(bundle: Path) -> None:
    """Where to see whether detectors were read rightly, which no comparison with them can tell."""
    if pictures := sorted((bundle / PICTURES).glob("*.jpg")):
        stdout.print(
            "no comparison with the file shows whether its boxes and classes were read as meant: "
            f"look at {' and '.join(map(str, pictures))}"
        )


def conclude(bundle: Path, parity: Parity, *, tell: bool = True) -> None:
    """Print one line: passed or not, on what, and how many decisions flip; and where to look.

    Raises:
        VerificationError: something is beyond its tolerance; the message names it.
    """
    if tell:
        photos = [counted(parity.photos, "photo")] if parity.photos else []
        noise = [counted(parity.random_tensors, "noise tensor")] if parity.random_tensors else []
        compared = photos + noise
        stdout.print(
            styled(
                "verification ",
                ("passed", "green") if parity.passed else ("failed", "red"),
                f": {' and '.join(compared)} on {parity.backend} ({parity.device})",
                *(f"; {said}" for said in _decisions(parity)),
            )
        )
        tell_pictures(bundle)
    failed = [
        f"{check.where} {check.tensor} ({check.max_abs:.1e})"
        for check in parity.checks
        if not check.passed
    ]
    if failed:
        raise VerificationError(
            f"{len(failed)} of {len(parity.checks)} tensors of {bundle} are beyond their "
            f"tolerance: {', '.join(failed)}"
        )


def _print_table(parity: Parity) -> None:
    """Every tensor, with the source's own rounding error where that had to be measured."""
    rounded = any(check.rounding is not None for check in parity.checks)
    checks = parity.checks
    columns = [
        column("stage, way or decision", (check.where for check in checks), words=True),
        column("tensor", (check.tensor for check in checks), words=True),
        column("absolute", (f"{check.max_abs:.1e}" for check in checks)),
        column("relative", (f"{check.max_rel:.1e}" for check in checks)),
    ]
    if rounded:
        columns.append(column("rounding", (f"{check.rounding or 0.0:.1e}" for check in checks)))
    verdicts = ("ok" if check.passed else "beyond" for check in checks)
    title = "Largest difference from the source"
    print_table(make_table(title, *columns, column("", verdicts, words=True)), stdout)
    if rounded:
        stdout.print("rounding: the source's own float32 error, measured against float64")


def _decisions(parity: Parity) -> list[str]:
    """How many decisions flip, by decider where there are several, and what was not compared."""
    parts = []
    if parity.flips.decisions:
        images = parity.photos + parity.random_tensors
        line = flipped(parity.flips.flips, parity.flips.decisions, images)
        if len(parity.decisions) > 1:
            each = (f"{n} {f.flips} of {f.decisions}" for n, f in parity.decisions.items())
            line += f" ({', '.join(each)})"
        parts.append(line)
    if parity.not_compared:
        lacking = ", ".join(parity.not_compared)
        parts.append(f"not compared, as the source lacks it: {lacking}")
    return parts
