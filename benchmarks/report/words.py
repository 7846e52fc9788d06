"""What a record says in a sentence: the result, what was measured, what is missing."""

from __future__ import annotations

from collections.abc import Iterable

from dyninfer.benchmarks.baselines.names import LAST_EXIT
from dyninfer.benchmarks.latency.doubts import doubts_of
from dyninfer.benchmarks.latency.model_record import LatencyModel
from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.latency.scenario_record import Scenario, ScenarioResult
from dyninfer.benchmarks.report.figures import counted, ms, number, percent, result_words

FEW_CALLS = 100
_NAMED = 3
_ABOUT_EQUAL = 0.02
_TOOLS = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def plain_result(record: BenchRecord, hard_fraction: float | None) -> ScenarioResult | None:
    """The scenario of one picture at a time, one caller, and this share of hard ones."""
    wanted = Scenario(hard_fraction=hard_fraction)
    decoded = Scenario(hard_fraction=hard_fraction, decode=True)
    found = {result.scenario: result for result in record.scenarios}
    return found.get(wanted) or found.get(decoded)


def result_sentence(record: BenchRecord) -> str:
    """The result in one sentence: easy, hard, half and half; how much faster than no routing."""
    easy, hard = plain_result(record, 0), plain_result(record, 1)
    half = plain_result(record, 0.5)
    if record.measured.exits == 1 or easy is None or hard is None:
        return _first_scenario(record)
    sentence = f"An easy image takes {ms(_mean_ms(easy))}, a hard one {ms(_mean_ms(hard))}"
    if half is None:
        return sentence + "."
    return f"{sentence}; at 50 % hard {ms(_mean_ms(half))}, {_gain(record, half, hard)}."


def _mean_ms(result: ScenarioResult) -> float:
    """Of a call with one image."""
    return result.latency.mean_ms.value


def _first_scenario(record: BenchRecord) -> str:
    closed = [result for result in record.scenarios if result.scenario.rate_per_s is None]
    found = plain_result(record, None) or next(iter([*closed, *record.scenarios]), None)
    if found is None:
        return "No scenario was measured."
    # with one exit, all images are easy and hard at once
    one_exit = record.measured.exits == 1
    how = f"batch {found.scenario.batch}" if one_exit else result_words(found)
    return f"An image takes {ms(found.ms_per_image.value)} ({how})."


def _gain(record: BenchRecord, half: ScenarioResult, hard: ScenarioResult) -> str:
    ratios = {
        entry.side: entry.ratio.median
        for entry in (record.baselines.ratios if record.baselines else ())
        if entry.baseline == LAST_EXIT
    }
    first, last = record.measured.way_names[0], record.measured.way_names[-1]
    if set(ratios) >= {first, last}:
        # the last exit's detector takes as long for either, so half of each is their mean
        share = (ratios[first] + ratios[last]) / 2
        than = "always running the last exit's detector alone"
    else:
        share = _mean_ms(half) / _mean_ms(hard)
        than = "sending every image through to the last exit"
    if abs(share - 1) < _ABOUT_EQUAL:
        return f"about as long as {than}"
    if share > 1:
        return f"{number(share)} times as long as {than}"
    return f"{number(1 / share)} times as fast as {than}"


def engine_words(record: BenchRecord) -> str:
    """What ran the stages."""
    measured = record.measured
    tool = _TOOLS.get(measured.backend, measured.backend)
    provider = f", provider {measured.provider}" if measured.provider else ""
    return f"{tool} {measured.backend_version}{provider}"


def precision_words(record: BenchRecord) -> str:
    """The precision of all stages, or of each where they differ."""
    stages = record.measured.stages
    kinds = list(dict.fromkeys(stage.precision for stage in stages))
    if len(kinds) == 1:
        return kinds[0]
    return ", ".join(f"{stage.name} {stage.precision}" for stage in stages)


def pictures_words(record: BenchRecord) -> str:
    """What was run, and the sizes of it."""
    pictures = record.pictures
    sizes = sorted(pictures.sizes.items(), key=lambda entry: -entry[1])
    shown = ", ".join(f"{size} ({count:,})" for size, count in sizes[:_NAMED])
    more = f" and {counted(len(sizes) - _NAMED, 'other size')}" if len(sizes) > _NAMED else ""
    listed = f"; height x width {shown}{more}" if sizes else ""
    if len(sizes) == 1:
        only = sizes[0][0]
        listed = "" if only in pictures.what else f"; all {only} (height x width)"
    return f"{pictures.in_words}{listed}"


def inputs_words(record: BenchRecord) -> str:
    """Image inputs and their sizes."""
    return ", ".join(f"{name} {size}" for name, size in record.measured.image_inputs.items())


def warnings(record: BenchRecord) -> list[str]:
    """What makes the figures less sure, one sentence each."""
    few = [r for r in record.scenarios if r.latency.count < FEW_CALLS]
    found = doubts_of(record)
    if few:
        least = min(result.latency.count for result in few)
        found.append(
            f"few calls ({least:,} or more, expected {FEW_CALLS:,}) of {_some(few)}: high "
            "percentiles are left out or uncertain; measure longer"
        )
    return found


def _some(results: Iterable[ScenarioResult]) -> str:
    names = [result_words(result) for result in results]
    if len(names) > _NAMED:
        names = [*names[:_NAMED], f"{counted(len(names) - _NAMED, 'other scenario')}"]
    return "; ".join(names)


def why_missing(record: BenchRecord, keys: Iterable[str], otherwise: str) -> str:
    """What the record says of a part that is not there, as a sentence.

    Args:
        record: that lacks the part.
        keys: names under which the record may give the reason.
        otherwise: the reason where it gives none.
    """
    reason = next((record.missing[key] for key in keys if key in record.missing), otherwise)
    reason = reason.strip() or otherwise
    return reason if reason[-1] in ".!?" else f"{reason}."


def energy_words(record: BenchRecord) -> str:
    """Joules of an image at each exit, above idle."""
    energy = record.energy
    if energy is None:
        reason = why_missing(record, ("energy",), "no energy meter was at hand")
        return f"Energy was not measured: {reason}"
    exits = ", ".join(
        f"{number(joules)} J at exit {index}" for index, joules in enumerate(energy.joules_by_exit)
    )
    idle = f"the machine takes {number(energy.idle_watts)} W when idle, which is not counted"
    return f"Energy of an image that leaves there: {exits} ({energy.source}; {idle})."


def break_even_words(record: BenchRecord) -> str:
    """Up to which share of hard images the cascade is worth it."""
    if record.model is None:
        return ""
    by_model = _break_even_by_model(record.model)
    if record.model.break_even is None:
        return by_model
    return f"{_break_even_measured(record.model.break_even)} {by_model}".rstrip()


def _break_even_measured(share: float) -> str:
    if share >= 1:
        return (
            "The cascade is faster than the last exit's detector alone at any share of hard images."
        )
    if share <= 0:
        return "The last exit's detector alone is faster at any share of hard images."
    return (
        "The cascade is faster than the last exit's detector alone "
        f"as long as fewer than {percent(share)} of the images are hard (measured, batch 1)."
    )


def _break_even_by_model(model: LatencyModel) -> str:
    """An estimate, and none where nothing tells that the model predicts well."""
    if not model.is_tested:
        return ""
    shares = "; ".join(
        f"at batch {batch} {_up_to(share)}" for batch, share in model.break_even_by_batch.items()
    )
    return shares and (
        "Estimated by the model, the cascade is faster than the last exit's detector alone: "
        f"{shares}."
    )


def _up_to(share: float) -> str:
    if share <= 0:
        return "never"
    return "at any share of hard images" if share >= 1 else f"up to {percent(share)} hard"
