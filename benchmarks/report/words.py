"""What a record says in a sentence, and which of its scenarios stand for the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dyninfer.benchmarks.baselines.setup import LAST_EXIT
from dyninfer.benchmarks.latency.doubts import doubts_of
from dyninfer.benchmarks.latency.record import BenchRecord, LatencyModel
from dyninfer.benchmarks.latency.scenario_record import Scenario, ScenarioResult
from dyninfer.benchmarks.latency.statistics import calls_needed
from dyninfer.benchmarks.report.figures import counted, ms, number, percent

FEW_CALLS = 100
_NAMED = 3
_ABOUT_EQUAL = 0.02


def plain_result(record: BenchRecord, hard_fraction: float | None) -> ScenarioResult | None:
    """The scenario of one picture at a time, one caller, and this share of hard ones."""
    wanted = Scenario(hard_fraction=hard_fraction)
    decoded = Scenario(hard_fraction=hard_fraction, decode=True)
    found = {result.scenario: result for result in record.scenarios}
    return found.get(wanted) or found.get(decoded)


def closed_loop(record: BenchRecord) -> list[ScenarioResult]:
    """Scenarios whose calls follow each other."""
    return [result for result in record.scenarios if result.scenario.rate_per_s is None]


def forced_ends(results: Sequence[ScenarioResult]) -> list[ScenarioResult]:
    """The easiest and the hardest of the plain scenarios whose exits are forced."""
    plain = [r for r in results if r.scenario.is_plain and r.scenario.hard_fraction is not None]
    plain.sort(key=lambda result: result.hard_fraction)
    return plain if len(plain) < 2 else [plain[0], plain[-1]]


def mixture(results: Sequence[ScenarioResult]) -> ScenarioResult | None:
    """A plain scenario whose images left at several exits, best as routed."""
    mixed = [result for result in results if result.scenario.is_plain and leaves_at_several(result)]
    mixed.sort(key=lambda result: result.scenario.hard_fraction is not None)
    return mixed[0] if mixed else None


def leaves_at_several(result: ScenarioResult) -> bool:
    """Whether several exits have calls of their own."""
    return sum(exit_.latency is not None for exit_ in result.exits) > 1


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
    """The mean time of a call with one image."""
    return result.latency.mean_ms.value


def _first_scenario(record: BenchRecord) -> str:
    others = iter([*closed_loop(record), *record.scenarios])
    found = plain_result(record, None) or next(others, None)
    if found is None:
        return "No scenario was measured."
    # with one exit, all images are easy and hard at once
    one_exit = record.measured.exits == 1
    how = f"batch {found.scenario.batch}" if one_exit else found.name
    return f"An image takes {ms(found.ms_per_image.value)} ({how})."


def _gain(record: BenchRecord, half: ScenarioResult, hard: ScenarioResult) -> str:
    ratios = {
        entry.side: entry.ratio.median
        for entry in (record.baselines.ratios if record.baselines else ())
        if entry.baseline == LAST_EXIT
    }
    first, last = record.measured.ways[0], record.measured.ways[-1]
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


def footnote(results: Sequence[ScenarioResult]) -> str:
    """How many calls there are, and what would take more."""
    fewest, most = (pick(result.latency.count for result in results) for pick in (min, max))
    calls = f"{counted(most, 'call')} each"
    if fewest < most:
        calls = f"{fewest:,} to {calls}"
    needs = f"{calls_needed(0.99)} calls for p99, {calls_needed(0.999)} for p99.9"
    return (
        f"{calls}; ± is the half of the 95 % interval of p50 "
        f"that reaches farther; it takes {needs} (more with --seconds)"
    )


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
    names = [result.name for result in results]
    if len(names) > _NAMED:
        names = [*names[:_NAMED], f"{counted(len(names) - _NAMED, 'other scenario')}"]
    return "; ".join(names)


def why_missing(record: BenchRecord, keys: Iterable[str], otherwise: str) -> str:
    """What the record says of a part that is not there, under one of the keys, as a sentence."""
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


def model_words(model: LatencyModel) -> str:
    """How well the latency model predicts."""
    held_out, fitted = sum(check.held_out for check in model.checks), len(model.checks)
    if held_out:
        over = f"{counted(held_out, 'scenario')} that {'was' if held_out == 1 else 'were'} held out"
    else:
        over = f"the {'scenario' if fitted == 1 else f'{fitted} scenarios'} that it was fitted on"
    noise = ""
    if model.mean_noise is not None:
        known = f"is itself known to within {percent(model.mean_noise, 1)}"
        noise = f"; what was measured of them {known}"
    return f"The model is off by {percent(model.mean_error, 1)} on average over {over}{noise}."


def break_even_words(model: LatencyModel) -> str:
    """Up to which share of hard images the cascade is worth it; empty where that is not known."""
    by_model = _break_even_by_model(model)
    if model.break_even is None:
        return by_model
    return f"{_break_even_measured(model.break_even)} {by_model}".rstrip()


def _break_even_measured(share: float) -> str:
    if share >= 1:
        return (
            "The cascade is faster than the last exit's detector alone at any share of hard images."
        )
    if share <= 0:
        return "The last exit's detector alone is faster at any share of hard images."
    return (
        "The cascade is faster than the last exit's detector alone "
        f"as long as fewer than {_between(share)} of the images are hard (measured, batch 1)."
    )


def _between(share: float) -> str:
    """A share in per cent that reads neither as none nor as all."""
    return percent(min(max(share, 0.01), 0.99))


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
    return "at any share of hard images" if share >= 1 else f"up to {_between(share)} hard"
