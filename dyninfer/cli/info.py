"""``dyninfer info``: what is inside a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dyninfer.benchmarks.report.figures import readable
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.builds.search import list_builds, open_build
from dyninfer.builds.signature import check_build
from dyninfer.builds.spec import source_hashes
from dyninfer.bundle.calibration import Calibration
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Setting, Source, Task, TensorSpec
from dyninfer.bundle.signature import check_bundle
from dyninfer.cli.biases import bias_table, expected_line
from dyninfer.cli.bom import bill_of_materials
from dyninfer.cli.build import builds_table
from dyninfer.cli.common import flipped, print_json, stdout, warn
from dyninfer.cli.options import BundleArgument, JsonOption, TrustedKeyOption
from dyninfer.errors import BundleError
from dyninfer.evaluation.worth import no_better
from dyninfer.plain_text import counted
from dyninfer.results.tasks import Options

_LONGEST_SETTING = 60  # characters; a structure text has hundreds
BomOption = Annotated[
    bool, typer.Option("--bom", help="Print a CycloneDX 1.6 bill of materials (JSON).")
]


def info(
    bundle: BundleArgument,
    json_output: JsonOption = False,
    bom: BomOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Show what is inside a bundle, after checking every hash.

    Example: **dyninfer info dy-yolov7.dyn --json**
    """
    if trusted_key is not None:
        _check_signatures(Bundle.read(bundle), Path(trusted_key))
    if bom:
        if json_output:
            raise typer.BadParameter("--json and --bom are two documents; ask for one")
        print_bill_of_materials(bundle)
        return
    if not json_output:
        print_bundle(bundle)
        return
    opened = Bundle.open(bundle, check_calibration=False)
    manifest, (calibrations, unusable) = opened.manifest, _calibrations_of(opened)
    if unusable:
        warn(unusable)
    shown = [
        {
            **calibration.model_dump(
                mode="json", exclude={"easiness", "choice_scores", "losses", "exit_ms"}
            ),
            "fits_stages": _calibration_fits(opened, calibration),
        }
        for calibration in calibrations
    ]
    document = manifest.model_dump(mode="json") | {
        "roles": manifest.roles,
        "defaults": {
            "use": asdict(manifest.use_options),
            "evaluation": asdict(manifest.evaluation_options),
        },
        "parity": opened.parity(),
        "calibration": shown[0] if shown else None,
        "calibrations": shown,
        "builds": [
            {"folder": path.name, **build.model_dump(mode="json")}
            for path, build in list_builds(opened)[0].items()
        ],
    }
    print_json(document)


def _check_signatures(bundle: Bundle, public_key: Path) -> None:
    """Refuse a bundle that is not signed by this key, and name the builds that are not."""
    check_bundle(bundle, public_key)
    for path, build in list_builds(bundle)[0].items():
        try:
            check_build(open_build(path, build), public_key)
        except BundleError as error:
            warn(error)


def print_bill_of_materials(path: Path) -> None:
    """A CycloneDX document, with figures of the calibration where it fits the stages."""
    opened = Bundle.open(path, check_calibration=False)
    calibrations, unusable = _calibrations_of(opened)
    if unusable:
        warn(unusable)
    fitting = (entry for entry in calibrations if _calibration_fits(opened, entry))
    print_json(bill_of_materials(opened, next(fitting, None)))


def print_bundle(path: Path) -> None:
    """Stages, costs and parity as tables."""
    bundle = Bundle.open(path, check_calibration=False)
    manifest = bundle.manifest
    names = manifest.class_names
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    classes = f", {counted(len(names), 'class')} ({shown})" if names else ""
    stdout.print(
        styled(
            (manifest.name, "bold"),
            f"  {manifest.family}, {manifest.task.value}, "
            f"{manifest.route.kind} route ({', '.join(manifest.way_names)}){classes}",
        )
    )
    for name, spec in manifest.image_inputs.items():
        stdout.print(
            f"input {name}: {spec.height}x{spec.width} (HxW), {spec.resize.value}, "
            f"{spec.color_order.value}",
        )
    print_table(_stage_table(bundle), stdout)
    for index, name in enumerate(manifest.way_names):
        stages = " + ".join(manifest.stages_to(index))
        macs = readable(manifest.macs_to(index))
        stdout.print(f"{name}: {stages}; an image that takes it costs {macs} MACs")
    finds = manifest.task is not Task.FEATURES
    if finds:
        stdout.print(
            f"defaults: {_options(manifest.use_options)}; "
            f"for evaluation: {_options(manifest.evaluation_options)}"
        )
    if manifest.settings:
        settings = (_setting(name, value) for name, value in manifest.settings.items())
        stdout.print(f"settings: {', '.join(settings)}")
    for source in (manifest.source, *manifest.further_sources):
        stdout.print(_source_line(source))
    for weights in dict.fromkeys(s.weights for s in manifest.stages.values() if s.weights):
        size = (bundle.path / weights.file).stat().st_size
        stages = ", ".join(n for n, s in manifest.stages.items() if s.weights == weights)
        stdout.print(f"weights: {weights.file}, {size / 1e6:.1f} MB, shared by {stages}")
    stdout.print(_parity_line(bundle))
    for line in _calibration_lines(bundle) if finds else ():
        stdout.print(line)
    _print_biases(bundle)
    builds, broken = list_builds(bundle)
    if builds:
        print_table(builds_table(builds), stdout)
    for error in broken:
        warn(error)


def _stage_table(bundle: Bundle) -> Table:
    stages, roles = bundle.manifest.stages, bundle.manifest.roles
    sizes = (bundle.stage_path(name).stat().st_size for name in stages)
    return make_table(
        "",
        column("stage", stages, words=True),
        column("role", (roles.get(name, "-") for name in stages), words=True),
        column("reads", (_names(stage.inputs) for stage in stages.values()), words=True),
        column("makes", (_names(stage.outputs) for stage in stages.values()), words=True),
        column("parameters", (readable(stage.parameters) for stage in stages.values())),
        column("MACs", (readable(stage.macs) for stage in stages.values())),
        column("file", (f"{size / 1e6:.1f} MB" for size in sizes)),
    )


def _options(options: Options) -> str:
    pairs = asdict(options).items()
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in pairs)


def _setting(name: str, value: Setting) -> str:
    shown = "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if len(shown) > _LONGEST_SETTING:
        shown = f"{shown[: _LONGEST_SETTING - 3]}..."
    return f"{name.replace('_', ' ')} {shown}"


def _names(specs: Sequence[TensorSpec]) -> str:
    """Names of tensors; features, of which there are many, as their number."""
    names = [spec.name for spec in specs]
    features = [name for name in names if name.startswith("feature_")]
    if len(features) < 2:
        return ", ".join(names)
    others = [name for name in names if name not in features]
    return ", ".join([*others, f"{counted(len(features), 'feature')}"])


def _source_line(source: Source) -> str:
    return (
        f"weights from {source.file_name} (SHA-256 {source.sha256[:12]}...), "
        f"licence {source.licence or 'not recorded'}"
    )


def _parity_line(bundle: Bundle) -> Text | str:
    parity = bundle.parity()
    if parity is None:
        return "not verified yet: dyninfer verify compares it with its source"
    current = {name: stage.sha256 for name, stage in bundle.manifest.stages.items()}
    if parity.get("stages_sha256") != current:
        return styled(("verified before its stages changed; run dyninfer verify again", "yellow"))
    try:
        return _verdict(parity)
    except (AttributeError, KeyError, TypeError, ValueError):  # sealed, and yet not by verify
        return styled(("parity.json is not what dyninfer verify writes; run it again", "yellow"))


def _verdict(parity: Mapping[str, Any]) -> Text:
    boxes = [check["max_abs"] for check in parity["checks"] if check["tensor"] == "boxes_xyxy"]
    said = [f"boxes within {max(boxes):.1e} pixels"] if boxes else []  # a classifier has none
    verdict = ("passed", "green") if parity["passed"] else ("failed", "red")
    if parity["decisions"]:
        images = parity["photos"] + parity["random_tensors"]
        said.append(flipped(parity["flips"], parity["decisions"], images))
    return styled(
        "verification ",
        verdict,
        f" on {parity['backend']} ({parity['device']})" + ": " * bool(said) + ", ".join(said),
    )


def _calibration_fits(bundle: Bundle, calibration: Calibration) -> bool:
    """Whether it was made with these stage files, the bundle's own or those of a build.

    Which engine opens them is not known here.
    """
    built = [build.onnx_sha256() for build in list_builds(bundle)[0].values()]
    return dict(calibration.engine.stages_sha256) in [source_hashes(bundle.manifest), *built]


def _calibrations_of(bundle: Bundle) -> tuple[tuple[Calibration, ...], str]:
    """The calibrations, and why they cannot be used, if so; the rest of the bundle can."""
    try:
        return bundle.calibrations(), ""
    except BundleError as error:
        return (), str(error)


def _calibration_lines(bundle: Bundle) -> list[Text | str]:
    """One for each set of engines that was calibrated."""
    manifest, (calibrations, unusable) = bundle.manifest, _calibrations_of(bundle)
    if unusable:
        return [styled((unusable, "yellow"))]
    if not calibrations:
        if len(manifest.ways) > 1 and not manifest.routed:
            return ["no router yet: dyninfer fit-router trains one"]
        return [
            "not calibrated yet: dyninfer calibrate measures ways and thresholds on your pictures"
        ]
    fitting = [entry for entry in calibrations if _calibration_fits(bundle, entry)]
    if not fitting:
        text = "calibrated before its stages changed; run dyninfer calibrate again"
        return [styled((text, "yellow"))]
    lines: list[Text | str] = [_calibration_line(entry, manifest) for entry in fitting]
    scores = [way.scores.primary for way in fitting[0].ways]
    metric, count = fitting[0].metrics[0], fitting[0].images.count
    told = no_better(metric, scores, manifest.way_names, count, manifest)
    return [*lines, styled((told, "yellow"))] if told else lines


def _print_biases(bundle: Bundle) -> None:
    """What a chooser's newest calibration says of multiply-accumulates, where it fits."""
    fitting = (c for c in _calibrations_of(bundle)[0] if _calibration_fits(bundle, c))
    calibration = next(fitting, None)
    if calibration is None:
        return
    if line := expected_line(calibration, bundle.manifest.way_names):
        stdout.print(line)
    if calibration.biases:
        print_table(bias_table(calibration), stdout)


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _calibration_line(calibration: Calibration, manifest: Manifest) -> str:
    engine, ways = calibration.engine, calibration.ways
    order = manifest.ways_by_cost
    first, last = calibration.rows[0] if calibration.rows else ways[order[0]], ways[order[-1]]
    labels = "without labels"
    if last.scores.primary is not None and first.scores.primary is not None:
        lowest, highest = 100 * first.scores.primary, 100 * last.scores.primary
        labels = f"{calibration.metrics[0]} {_span(f'{lowest:.1f}', f'{highest:.1f}')}"
    certified = "" if calibration.certificate is None else ", with a certificate"
    return (
        f"calibrated on {counted(calibration.images.count, 'picture')} ({labels}{certified}), "
        f"{_span(f'{first.mean_ms:.2f}', f'{last.mean_ms:.2f}')} ms, {engine.precision_words}, "
        f"{engine.backend} {engine.backend_version} ({engine.provider}), {engine.device_name}"
    )
