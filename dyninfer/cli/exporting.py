"""What all exports share: where a bundle goes, a bar, the check at the end, and what is next."""

from __future__ import annotations

import gc
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.folder import SUFFIX
from dyninfer.bundle.manifest import Task
from dyninfer.cli.common import built_in_photos, progress_bar, stderr, stdout
from dyninfer.cli.info import print_bundle
from dyninfer.cli.verify import conclude, run_verification, tell_pictures
from dyninfer.exporters.candidate_rows import CANDIDATES
from dyninfer.installing import pip_install

if TYPE_CHECKING:
    from dyninfer.exporters.family import Exported, Family

SourceT = TypeVar("SourceT")
OptionsT = TypeVar("OptionsT")
DYNAMICDET_STAGES = 4
USUAL_CANDIDATES = str(CANDIDATES)

NameOption = Annotated[str | None, typer.Option(help="Name of the bundle.")]
CandidatesOption = Annotated[
    str, typer.Option(metavar="N", help="How many of the surest boxes are given on, or all.")
]


@dataclass(frozen=True)
class WritingOptions:
    """What every export is told of the bundle that it writes."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The bundle to write. Default: the source's name with .dyn."
        ),
    ] = None
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, for the manifest.")
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle if it exists.")
    ] = False
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Compare the bundle with its source at the end."),
    ] = True

    def target(self, sources: Sequence[Path]) -> Path:
        """What was asked for, or a name made of the sources'."""
        return self.output or Path("-".join(source.stem for source in sources) + SUFFIX)


def parse_candidates(text: str) -> int | None:
    """``1000`` -> 1000; ``all`` -> None.

    Raises:
        typer.BadParameter: anything else.
    """
    if text.strip().lower() == "all":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text.strip()):
        raise typer.BadParameter(f"--candidates is {text!r}, expected a number from 1 up, or all")
    return int(text)


def export_with_progress(
    family: Family[SourceT, OptionsT], source: SourceT, target: Path, options: OptionsT, steps: int
) -> Exported:
    """Export; the bar names the step, of which there are about ``steps``."""
    with progress_bar() as progress:
        task = progress.add_task("reading", total=steps)

        def step(description: str) -> None:
            progress.update(task, description=description, advance=1)

        return family.export(source, target, options, step)


def export_checkpoints(
    family: Family[SourceT, OptionsT],
    source: SourceT,
    options: OptionsT,
    sources: Sequence[Path],
    writing: WritingOptions,
    *,
    steps: int,
    config: Path | None = None,
) -> None:
    """Export; say what was found in the sources, whether the bundle equals them, and what is next.

    ``source`` is what the family takes, ``sources`` the files that it was made of.
    """
    bundle = writing.target(sources)
    made = export_with_progress(family, source, bundle, options, steps)
    for note in made.notes:
        stdout.print(note)
    if writing.check:
        _check(bundle, sources, config, (), batch=1)  # of 1280 pixels, images take gigabytes
    quoted = shlex.quote(str(bundle))
    detects = made.manifest.task is not Task.FEATURES
    show(bundle, f"predict {quoted} IMAGE_OR_FOLDER" if detects else f"bench {quoted}")


def conclude_export(
    made: Exported, bundle: Path, sources: Sequence[Path], *, check: bool, batch: int = 2
) -> None:
    """What was guessed of detectors, and whether the bundle equals them."""
    for note in made.notes:
        stdout.print(note)
    if check:
        _check(bundle, sources, None, built_in_photos(), batch)
    else:
        tell_pictures(bundle)


def _check(
    bundle: Path,
    sources: Sequence[Path],
    config: Path | None,
    photos: Sequence[Path],
    batch: int = 2,
) -> None:
    """A quick verification, where ONNX Runtime is installed."""
    if find_spec("onnxruntime") is None:
        stderr.print(
            "not checked: ONNX Runtime is not installed; "
            f"{pip_install('cpu')}, then dyninfer verify"
        )
        return
    gc.collect()  # what the export has left in cycles
    parity, _ = run_verification(bundle, sources, config, photos, random_tensors=2, batch=batch)
    conclude(bundle, parity)


def show(target: Path, next_command: str) -> None:
    """The bundle that was written, and what to do next."""
    stdout.print(styled("wrote ", (str(target), "bold")))
    print_bundle(target)
    stdout.print(f"next: dyninfer {next_command}")
