"""``dyninfer build --backend auto``: which backend and precision is fastest for each stage here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.builds.auto import (
    AUTO,
    LARGEST_BATCH,
    AutoRecord,
    Mix,
    auto_command,
    read_auto,
    why_stale,
    write_auto,
)
from dyninfer.builds.files import check_writable
from dyninfer.builds.gate import EXAMPLES, SHARES, Limits, describe_gate, parse_gate
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.signature import check_bundle
from dyninfer.cli.build_conversions import asked_samples
from dyninfer.cli.build_gate import check_labels
from dyninfer.cli.build_options import BuildOptions, InputChoice
from dyninfer.cli.common import print_json, progress_bar, stderr, stdout
from dyninfer.errors import EngineBuildError
from dyninfer.evaluation.dataset import Samples
from dyninfer.exporters.extras import require_export_extra
from dyninfer.plain_text import counted

BATCHES = (1, 2, 4, 8)
"""Those that ``--batch auto`` compares."""


def build_auto(path: Path, asked: BuildOptions, *, no_build: bool, json_output: bool) -> None:
    """Measure, keep and show what is fastest here, or show what was measured already.

    Raises:
        EngineBuildError: the bundle cannot be written; with ``no_build``, nothing was measured
            that holds here.
        typer.BadParameter: an option does not go with it.
    """
    batches = _batches(asked)
    bundle = Bundle.open(path)
    if asked.trusted_key is not None:
        check_bundle(bundle, Path(asked.trusted_key))
    limits = None if asked.gate is None else parse_gate(asked.gate, bundle.manifest)
    record = None if asked.force else _kept(bundle, asked, limits, no_build=no_build)
    new = record is None
    if record is None:
        check_writable(bundle)
        record = _measure(bundle, asked, limits, batches)
        written = write_auto(bundle, record)
        stderr.print(f"kept in {written}")
    if json_output:
        print_json({"new": new, **record.model_dump(mode="json")})
    else:
        _show(bundle, record)


def _batches(asked: BuildOptions) -> tuple[int, ...]:
    """Numbers of images in a call, 1 first; what does not go with ``--backend auto`` is refused."""
    given = {
        "--precision": asked.precision,
        "--input": asked.input_ is not InputChoice.FLOAT32,
        "--io": asked.io,
    }
    for option, value in given.items():
        if value:
            raise typer.BadParameter(
                f"{option} does not go with --backend auto, which measures every precision that is "
                "at hand; int8 is one once dyninfer build -p int8 with --backend onnxruntime or "
                "openvino has made it"
            )
    asked.refuse_engine_options()
    if asked.batch in (None, AUTO):
        return BATCHES
    text = str(asked.batch)
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= LARGEST_BATCH:
        raise typer.BadParameter(
            f"--batch is {text!r}, expected with --backend auto a number of images from 1 to "
            f"{LARGEST_BATCH}, or auto"
        )
    return tuple(sorted({1, int(text)}))


def _kept(
    bundle: Bundle, asked: BuildOptions, limits: Limits | None, *, no_build: bool
) -> AutoRecord | None:
    """What was measured already and holds here, for what is asked; else None, with the reason."""
    record = read_auto(bundle)
    why = "nothing was measured yet" if record is None else _why_not(bundle, record, asked, limits)
    if why is None:
        return record
    if no_build:
        raise EngineBuildError(f"{bundle.path}: {why}; run: {auto_command(bundle)}")
    if record is not None:
        stderr.print(f"measuring again: {why}")
    return None


def _why_not(
    bundle: Bundle, record: AutoRecord, asked: BuildOptions, limits: Limits | None
) -> str | None:
    stale = why_stale(bundle, record)
    if stale is not None:
        return stale
    if limits is not None and dict(limits) != dict(record.limits):
        return f"the gate was {describe_gate(record.limits)}"
    if asked.batch not in (None, AUTO) and int(asked.batch) not in [m.batch for m in record.mixes]:
        return f"nothing was measured for a batch of {asked.batch}"
    if asked.images:
        samples = asked_samples(asked, bundle)
        same = record.images_sha256 == samples.sha256()
        if not same or record.labels_sha256 != samples.labels_sha256:
            return "it was measured on other pictures"
    return None


def _measure(
    bundle: Bundle, asked: BuildOptions, limits: Limits | None, batches: tuple[int, ...]
) -> AutoRecord:
    require_export_extra("comparing the accuracy of backends")
    from dyninfer.benchmarks.auto.mixes import Asked, MixFinder

    samples = asked_samples(asked, bundle)
    if limits is None:
        limits = _usual_limits(bundle, samples)
    check_labels(limits, samples, bundle.manifest)
    every = asked.batch not in (None, AUTO)
    stages, pictures = len(bundle.manifest.roles), counted(len(samples.items), "picture")
    stderr.print(
        f"measuring which backend is fastest for each of {counted(stages, 'stage')}, within the "
        f"gate {describe_gate(limits)} on {pictures}"
    )
    with progress_bar(remaining=True) as progress:

        def steps(what: str, total: int) -> Callable[[], None]:
            task = progress.add_task(what, total=total)
            return lambda: progress.advance(task)

        whole = Asked(bundle, samples, limits, batches, every, asked.trusted_key)
        return MixFinder(whole, steps, stderr.print).find()


def _usual_limits(bundle: Bundle, samples: Samples) -> dict[str, float]:
    """The gate where none is given: that of the examples, with a score where there are labels."""
    limits = parse_gate(EXAMPLES[bundle.manifest.task], bundle.manifest)
    return {n: limit for n, limit in limits.items() if samples.labelled or n in SHARES}


def _show(bundle: Bundle, record: AutoRecord) -> None:
    """A table for every batch that has a mix, and how it is opened."""
    for mix in record.mixes:
        _print_mix(mix)
    if record.gate is not None:
        stdout.print(
            f"gate passed on {counted(record.gate.pictures, 'picture')}: {record.gate.words}",
            soft_wrap=False,
        )
    for mix in record.mixes:
        precision = mix.precision(bundle.manifest) or "as exported"
        stdout.print(
            f"batch {mix.batch}: {mix.backend}, {precision}: {mix.ratio:.2f} of onnxruntime as "
            f"exported, {mix.ms_per_image:.2f} ms an image",
            soft_wrap=False,
        )
    stdout.print(
        f'--backend auto, or load(..., backend="auto"), opens it; best is {record.best_batch} in a '
        "call",
        soft_wrap=False,
    )


def _print_mix(mix: Mix) -> None:
    rows = [(stage, each) for stage, found in mix.candidates.items() for each in found]
    table = make_table(
        f"Milliseconds of {counted(mix.batch, 'image')}",
        column("stage", (stage for stage, _ in rows), words=True),
        column("candidate", (str(each.place) for _, each in rows), words=True),
        column("ms", (f"{each.ms:.2f}" for _, each in rows)),
        column("ratio", (f"{each.ratio:.2f}" for _, each in rows)),
        column("chosen", ("yes" if each.chosen else "" for _, each in rows), words=True),
        column("why", (each.why for _, each in rows), words=True),
    )
    print_table(table, stdout)
