"""``dyninfer bench``: where the time goes, how sure that is, and what the alternatives take."""

from __future__ import annotations

import shlex
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from dyninfer.benchmarks.report.table import print_page, print_table
from dyninfer.builds.auto import AUTO, auto_choice, check_auto
from dyninfer.bundle.folder import Bundle
from dyninfer.cli import bench_options
from dyninfer.cli.bench_arguments import (
    BaselineOptions,
    BlockOptions,
    EffortOptions,
    Format,
    OutputOptions,
    PictureOptions,
    RecordOptions,
    ScenarioOptions,
)
from dyninfer.cli.bench_blocks import bench_blocks
from dyninfer.cli.common import (
    check_output_file,
    print_document,
    print_json,
    progress_bar,
    read_speed,
    stderr,
    stdout,
    warn,
)
from dyninfer.cli.options import BundleOrNone, EngineOptions, JsonOption, with_option_groups
from dyninfer.errors import InputError, MissingExtra
from dyninfer.installing import pip_install
from dyninfer.plain_text import one_line

if TYPE_CHECKING:
    from dyninfer.benchmarks.latency.record import BenchRecord
    from dyninfer.benchmarks.latency.request import BenchRequest


NO_RECORD, NOT_COMPARABLE = 2, 3
STATUS_OF = {"not slower": 0, "slower": 1, "unclear": 4}
"""Of ``--compare``; 2 is wrong usage, too."""
_OF_BLOCKS = {"blocks", "image_size", "output", "json_output", "quick"} | {
    "backend",
    "device",
    "provider",
}


@with_option_groups
def bench(
    context: typer.Context,
    bundle: BundleOrNone = None,
    *,
    pictures: PictureOptions,
    scenarios: ScenarioOptions,
    effort: EffortOptions,
    baselines: BaselineOptions,
    records: RecordOptions,
    blocks: BlockOptions,
    outputs: OutputOptions,
    engine: EngineOptions,
    json_output: JsonOption = False,
) -> None:
    """Measure latency per call and per step, with intervals, beside named baselines.

    Scenarios take turns, so that a drift of the machine falls on all alike; shares of hard images
    are forced, exactly over every period. Use a machine that does nothing else.

    Example: **dyninfer bench dy-yolov7.dyn --images val/ --output new.json --report report.html**

    Example: **dyninfer bench --blocks --image-size 640 --output blocks.json**
    """
    chosen = _choose_format(context, outputs.format_, json_output)
    _check_mode(context, bundle, records, blocks)
    if blocks.blocks:
        bench_blocks(
            blocks.image_size, outputs.output, engine, quick=effort.quick, json_output=json_output
        )
        return
    _check_outputs(outputs)
    if records.compare is not None:
        if outputs.output or outputs.report or chosen is Format.MARKDOWN:
            raise typer.BadParameter("--compare prints tables or --json; give no other output")
        _compare(*records.compare, chosen)
        return
    from dyninfer.benchmarks.latency.record_file import read_record

    stopped: KeyboardInterrupt | None = None
    if bundle is None:
        assert records.from_record is not None  # as _check_mode saw to
        record = read_record(records.from_record)
    else:
        request = _request(context, bundle, pictures, scenarios, effort, baselines, engine)
        record, stopped = _run(request)
    try:
        _write(record, outputs)
    finally:  # a full disk must not cost what took minutes to measure
        _show(record, chosen)
    if stopped is not None:
        raise stopped


def _request(
    context: typer.Context,
    path: Path,
    pictures: PictureOptions,
    scenarios: ScenarioOptions,
    effort: EffortOptions,
    baselines: BaselineOptions,
    engine: EngineOptions,
) -> BenchRequest:
    """All that was asked for, checked and read as far as that takes no engines."""
    from dyninfer.benchmarks.latency.request import BenchRequest

    as_routed = bool(pictures.images) or scenarios.speed is not None
    choices = bench_options.make_choices(scenarios, as_routed=as_routed)
    policy = None if scenarios.speed is None else read_speed(scenarios.speed)
    bundle = Bundle.read(path)
    manifest = bundle.manifest  # loading checks them
    if engine.backend == AUTO:  # baselines open the same engines, and know nothing of it
        check_auto(engine.device, engine.provider, engine.precision)
        chosen = auto_choice(bundle, max(choices.batches))
        engine = replace(engine, backend=chosen.backend, precision=chosen.precision)
    bench_options.check_sources(manifest, path, baselines)
    return BenchRequest(
        command=shlex.join(["dyninfer", *(context.find_root().obj or ["bench"])]),
        bundle=path,
        engine=engine,
        baselines=bench_options.choose_baselines(manifest, baselines, effort),
        choices=choices,
        effort=bench_options.make_effort(effort),
        pictures=bench_options.choose_pictures(manifest, pictures, scenarios),
        policy=policy,
    )


def _check_mode(
    context: typer.Context, bundle: Path | None, records: RecordOptions, blocks: BlockOptions
) -> None:
    """A bundle to measure, or blocks, or two records, or one; and no option of another."""
    modes = (bundle, records.compare, records.from_record, blocks.blocks or None)
    if sum(value is not None for value in modes) != 1:
        raise typer.BadParameter(
            "give one of BUNDLE, --compare OLD NEW, --from RECORD and --blocks"
        )
    typed = [
        parameter
        for parameter in context.command.params
        if parameter.name
        and (source := context.get_parameter_source(parameter.name))
        and source.name != "DEFAULT"
    ]
    if bundle is not None:
        kept, why = {each.name for each in typed} - {"image_size"}, "--blocks, not for a bundle"
    elif blocks.blocks:
        kept, why = _OF_BLOCKS, "a bundle, and --blocks measures none; leave one of them out"
    else:
        mode = "--from" if records.compare is None else "--compare"
        groups = (OutputOptions, RecordOptions)
        kept = {field.name for group in groups for field in fields(group)} | {"json_output"}
        why = f"a measurement, and {mode} makes none; leave one of them out"
    for parameter in typed:
        if parameter.name not in kept:
            raise typer.BadParameter(f"{max(parameter.opts, key=len)} is for {why}")


def _choose_format(context: typer.Context, format_: Format, json_output: bool) -> Format:
    """How results are printed."""
    source = context.get_parameter_source("format_")
    typed = source is not None and source.name != "DEFAULT"
    if json_output and typed and format_ is not Format.JSON:
        raise typer.BadParameter(f"--json and --format {format_.value} were given; give one")
    return Format.JSON if json_output else format_


def _check_outputs(outputs: OutputOptions) -> None:
    """Say before the measurement what could not be written after it."""
    output, report = outputs.output, outputs.report
    if output is not None and output == report:
        raise typer.BadParameter(f"--output and --report both name {output}; give two files")
    for path in (output, report):
        if path is not None:
            check_output_file(path)
    if report is not None and find_spec("jinja2") is None:
        raise MissingExtra(f"--report needs jinja2; install it: {pip_install('report')}")


def _run(request: BenchRequest) -> tuple[BenchRecord, KeyboardInterrupt | None]:
    """Measure under a progress bar; with what was pressed where that cut it short."""
    from dyninfer.benchmarks.latency.take import BenchInterrupted, take_record

    stopped: KeyboardInterrupt | None = None
    with progress_bar(remaining=True) as progress:
        task = progress.add_task("opening the bundle", total=None)

        def on_step(what: str, done: int, total: int) -> None:
            if done == 0:  # steps of another kind take other times
                progress.reset(task, total=total)
            progress.update(task, description=what, completed=done, total=total)

        try:
            record = take_record(request, on_step)
        except BenchInterrupted as interruption:
            record, stopped = interruption.record, interruption
    for line in request.pictures.warnings:
        warn(line)
    return record, stopped


def _write(record: BenchRecord, outputs: OutputOptions) -> None:
    from dyninfer.benchmarks.latency.record_file import write_record
    from dyninfer.benchmarks.report.documents import write_html

    if outputs.output is not None:
        write_record(record, outputs.output)
    if outputs.report is not None:
        write_html(record, outputs.report)


def _show(record: BenchRecord, chosen: Format) -> None:
    """Print the record, and on stderr what should make one doubt it."""
    from dyninfer.benchmarks.latency.doubts import doubts_of
    from dyninfer.benchmarks.report.documents import to_markdown
    from dyninfer.benchmarks.report.view import page_of

    for line in doubts_of(record):
        warn(line)
    if chosen is Format.JSON:
        print_json(asdict(record))
    elif chosen is Format.MARKDOWN:
        print_document(to_markdown(record))
    else:
        print_page(page_of(record), stdout)


def _compare(old: Path, new: Path, chosen: Format) -> None:
    """Set two records beside each other; the status says what became of it."""
    from dyninfer.benchmarks.latency.compare import compare_records
    from dyninfer.benchmarks.latency.record_file import read_record
    from dyninfer.benchmarks.report.comparison import as_data, changes_table, lines_of, outcome_of

    try:
        records = read_record(old), read_record(new)
    except InputError as error:
        _end_with(NO_RECORD, error)
    try:
        comparison = compare_records(*records)
    except InputError as error:
        _end_with(NOT_COMPARABLE, error)
    if chosen is Format.JSON:
        print_json(as_data(comparison))
    else:
        print_table(changes_table(comparison), stdout)
        for line in lines_of(comparison):
            stdout.print(line)
    status = STATUS_OF[outcome_of(comparison).value]
    if status:
        raise typer.Exit(status)


def _end_with(status: int, error: InputError) -> NoReturn:
    """Say what is wrong, and end with a status that tells a script which kind of wrong it is."""
    stderr.print(f"error: {one_line(str(error))}")
    raise typer.Exit(status) from None
