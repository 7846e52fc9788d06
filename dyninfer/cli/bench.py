"""``dyninfer bench``: where the time goes, how sure that is, and what the alternatives take."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from dyninfer.cli.bench_arguments import (
    AgainstOption,
    AnnotationsOption,
    BatchesOption,
    BundleOrNone,
    CompareOption,
    ConcurrencyOption,
    DecodeOption,
    Format,
    FormatOption,
    FromOption,
    HardOption,
    ImagesOption,
    MinCallsOption,
    OutputOption,
    PicturesOption,
    QuickOption,
    RateOption,
    ReportOption,
    RoundsOption,
    SecondsOption,
    SourceOption,
    SyntheticOption,
)
from dyninfer.cli.bench_baselines import check_sources, choose_baselines
from dyninfer.cli.bench_options import (
    check_report_library,
    choose_pictures,
    make_choices,
    make_effort,
    parse_picture_size,
    refuse_measuring,
)
from dyninfer.cli.common import (
    BackendDeviceOption,
    BackendOption,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    SpeedOption,
    check_output_file,
    progress_bar,
    read_speed,
    stdout,
    warn,
)

if TYPE_CHECKING:
    from dyninfer.benchmarks.latency.record import BenchRecord
    from dyninfer.benchmarks.latency.take import BenchRequest

_SHOWING = frozenset({"output", "report", "format_", "json_output"})
"""Options that say what becomes of a record, wherever it comes from."""


def bench(
    context: typer.Context,
    bundle: BundleOrNone = None,
    images: ImagesOption = None,
    annotations: AnnotationsOption = None,
    pictures: PicturesOption = 64,
    synthetic: SyntheticOption = None,
    batch: BatchesOption = "1,8",
    hard: HardOption = None,
    concurrency: ConcurrencyOption = "1",
    rate: RateOption = None,
    decode: DecodeOption = False,
    speed: SpeedOption = None,
    seconds: SecondsOption = None,
    rounds: RoundsOption = None,
    min_calls: MinCallsOption = None,
    quick: QuickOption = False,
    against: AgainstOption = None,
    source: SourceOption = None,
    compare: CompareOption = None,
    from_record: FromOption = None,
    output: OutputOption = None,
    report: ReportOption = None,
    format_: FormatOption = Format.TABLE,
    device: BackendDeviceOption = None,
    backend: BackendOption = None,
    provider: ProviderOption = None,
    precision: PrecisionOption = None,
    json_output: JsonOption = False,
) -> None:
    """Measure latency per call and per step, with intervals, beside named baselines.

    Scenarios take turns, so that a drift of the machine falls on all alike; shares of hard images
    are forced, exactly over every period. Use a machine that does nothing else.

    Example: **dyninfer bench dy-yolov7.dyn --images val/ --output new.json --report report.html**
    """
    chosen = _choose_format(context, format_, json_output)
    _check_mode(context, bundle, compare, from_record)
    _check_outputs(output, report)
    if compare is not None:
        _refuse_other_outputs(output, report, chosen)
        _compare(*compare, chosen)
        return
    stopped: KeyboardInterrupt | None = None
    if from_record is not None:
        record = _read(from_record)
    else:
        assert bundle is not None  # as _check_mode saw to
        _check_pictures(images, annotations, synthetic, decode)
        from dyninfer.benchmarks.latency.against import Opening
        from dyninfer.benchmarks.latency.take import BenchRequest
        from dyninfer.bundle.folder import Bundle

        as_routed = bool(images) or speed is not None
        choices = make_choices(batch, hard, concurrency, rate, decode, as_routed)
        policy = None if speed is None else read_speed(speed)
        manifest = Bundle.open(bundle, check_files=False).manifest  # loading checks them
        check_sources(manifest, bundle, against, source)
        record, stopped = _run(
            BenchRequest(
                command=shlex.join(["dyninfer", *(context.find_root().obj or ["bench"])]),
                opening=Opening(bundle, device, backend, provider, precision),
                baselines=choose_baselines(manifest, against, source, quick, rounds),
                choices=choices,
                effort=make_effort(quick, seconds, rounds, min_calls),
                pictures=choose_pictures(manifest, images, annotations, synthetic, pictures),
                policy=policy,
            )
        )
    try:
        _write(record, output, report)
    finally:  # a full disk must not cost what took minutes to measure
        _show(record, chosen)
    if stopped is not None:
        raise stopped


def _check_mode(
    context: typer.Context,
    bundle: Path | None,
    compare: tuple[Path, Path] | None,
    from_record: Path | None,
) -> None:
    """A bundle to measure, or two records, or one; and no option that goes with another.

    Raises:
        typer.BadParameter: none of them was given, or several, or such an option.
    """
    given = sum(value is not None for value in (bundle, compare, from_record))
    if given != 1:
        raise typer.BadParameter("give one of BUNDLE, --compare OLD NEW and --from RECORD")
    if compare is not None:
        refuse_measuring(context, "--compare", _SHOWING | {"compare"})
    if from_record is not None:
        refuse_measuring(context, "--from", _SHOWING | {"from_record"})


def _choose_format(context: typer.Context, format_: Format, json_output: bool) -> Format:
    """How results are printed.

    Raises:
        typer.BadParameter: --json and another format were typed.
    """
    source = context.get_parameter_source("format_")
    typed = source is not None and source.name != "DEFAULT"
    if json_output and typed and format_ is not Format.JSON:
        raise typer.BadParameter(f"--json and --format {format_.value} were given; give one")
    return Format.JSON if json_output else format_


def _refuse_other_outputs(output: Path | None, report: Path | None, chosen: Format) -> None:
    if output or report or chosen is Format.MARKDOWN:
        raise typer.BadParameter("--compare prints tables or --json; give no other output")


def _check_pictures(
    images: list[Path] | None, annotations: Path | None, synthetic: str | None, decode: bool
) -> None:
    """Refuse options that need pictures of the user's, where there are none, or the reverse."""
    if annotations is not None and not images:
        raise typer.BadParameter("--annotations tells what is in pictures; give --images too")
    if decode and not images:
        raise typer.BadParameter("--decode reads files; give --images too")
    if synthetic is not None and images:
        raise typer.BadParameter("give one of --images and --synthetic")
    parse_picture_size(synthetic)


def _check_outputs(output: Path | None, report: Path | None) -> None:
    """Say before the measurement what could not be written after it."""
    if output is not None and output == report:
        raise typer.BadParameter(f"--output and --report both name {output}; give two files")
    for path in (output, report):
        if path is not None:
            check_output_file(path)
    if report is not None:
        check_report_library()


def _read(path: Path) -> BenchRecord:
    from dyninfer.benchmarks.latency.record import read_record

    return read_record(path)


def _run(request: BenchRequest) -> tuple[BenchRecord, KeyboardInterrupt | None]:
    """Measure under a progress bar; with what was pressed where that cut the baselines short."""
    from dyninfer.benchmarks.latency.take import ComparisonInterrupted, take_record

    stopped: KeyboardInterrupt | None = None
    with progress_bar() as progress:
        task = progress.add_task("opening the bundle", total=None)

        def on_step(what: str, done: int, total: int) -> None:
            progress.update(task, description=escape(what), completed=done, total=total)

        try:
            record = take_record(request, on_step)
        except ComparisonInterrupted as interruption:
            record, stopped = interruption.record, interruption
    for line in request.pictures.warnings:
        warn(line)
    return record, stopped


def _write(record: BenchRecord, output: Path | None, report: Path | None) -> None:
    from dyninfer.benchmarks.latency.record import write_record

    if output is not None:
        write_record(record, output)
    if report is not None:
        from dyninfer.benchmarks.report.html import write_html

        write_html(record, report)


def _show(record: BenchRecord, chosen: Format) -> None:
    """Print the record, and on stderr what should make one doubt it."""
    from dyninfer.benchmarks.latency.doubts import doubts_of

    for line in doubts_of(record):
        warn(line)
    if chosen is Format.JSON:
        stdout.print_json(json.dumps(asdict(record)))
    elif chosen is Format.MARKDOWN:
        from dyninfer.benchmarks.report.markdown import to_markdown

        typer.echo(to_markdown(record))
    else:
        from dyninfer.cli.bench_tables import print_record

        print_record(record)


def _compare(old: Path, new: Path, chosen: Format) -> None:
    """Set two records beside each other; status 1 where the new one is slower.

    Raises:
        typer.Exit: it is.
    """
    from dyninfer.benchmarks.latency.compare import compare_records
    from dyninfer.benchmarks.latency.compare_text import as_data
    from dyninfer.cli.bench_comparison import print_comparison

    comparison = compare_records(_read(old), _read(new))
    if chosen is Format.JSON:
        stdout.print_json(json.dumps(as_data(comparison)))
    else:
        print_comparison(comparison)
    if comparison.regressions:
        raise typer.Exit(1)
