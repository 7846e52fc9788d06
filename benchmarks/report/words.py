"""What a record says in a sentence, and which of its scenarios stand for the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dyninfer.benchmarks.baselines.setup import LAST_EXIT
from dyninfer.benchmarks.latency.doubts import doubts_of
from dyninfer.benchmarks.latency.record import BenchRecord, LatencyModel
from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario, ScenarioResult
from dyninfer.benchmarks.latency.statistics import calls_needed
from dyninfer.benchmarks.report.figures import interval, ms, number, percent
from dyninfer.evaluation.interleaved import RatioEstimate
from dyninfer.evaluation.worth import no_better
from dyninfer.plain_text import counted

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
    times = easy.latency.mean_ms, hard.latency.mean_ms
    known = "" if _differ(*times) else " (their intervals overlap)"
    sentence = f"An easy image takes {ms(times[0].value)}, a hard one {ms(times[1].value)}{known}"
    if half is None:
        return sentence + "."
    middle = ms(half.latency.mean_ms.value)
    return f"{sentence}; at 50 % hard {middle}, {_gain(record, half, hard)}."


def _differ(one: Estimate, other: Estimate) -> bool:
    """Whether two intervals are apart; those of few calls tell nothing."""
    known = one.has_interval and other.has_interval
    return known and (one.high < other.low or other.high < one.low)


def _first_scenario(record: BenchRecord) -> str:
    others = iter([*closed_loop(record), *record.scenarios])
    found = plain_result(record, None) or next(others, None)
    if found is None:
        return "No scenario was measured."
    # with one exit, all images are easy and hard at once
    one_exit = record.measured.exits == 1
    how = f"batch {found.scenario.batch}" if one_exit else found.name
    took_ms = found.latency.mean_ms.value / found.scenario.batch
    return f"An image takes {ms(took_ms)} ({how})."


def _gain(record: BenchRecord, half: ScenarioResult, hard: ScenarioResult) -> str:
    """How half and half compares with no routing, unless the intervals leave that open."""
    ratios = last_exit_ratios(record)
    first, last = (ratios.get(record.measured.ways[index]) for index in (0, -1))
    if first is not None and last is not None:
        # the last exit's detector takes as long for either, so half of each is their mean
        share = Estimate(
            (first.median + last.median) / 2,
            (first.low + last.low) / 2,
            (first.high + last.high) / 2,
        )
        than = "always running the last exit's detector alone"
    else:
        ours, theirs = half.latency.mean_ms, hard.latency.mean_ms
        share = Estimate(ours.value / theirs.value, ours.low / theirs.high, ours.high / theirs.low)
        than = "sending every image through to the last exit"
    if abs(share.value - 1) < _ABOUT_EQUAL:
        return f"about as long as {than}"
    if not share.has_interval:
        return f"{number(share.value)} times as long as {than}, by too few calls to tell"
    if share.low <= 1 <= share.high:
        return f"indistinguishable from {than}: {interval(share)} times as long"
    if share.value > 1:
        return f"{number(share.value)} times as long as {than} ({interval(share)})"
    faster = Estimate(1 / share.value, 1 / share.high, 1 / share.low)
    return f"{number(faster.value)} times as fast as {than} ({interval(faster)})"


def footnote(results: Sequence[ScenarioResult]) -> str:
    """How many calls there are, and what would take more."""
    fewest, most = (pick(result.latency.count for result in results) for pick in (min, max))
    calls = f"{counted(most, 'call')} each"
    if fewest < most:
        calls = f"{fewest:,} to {calls}"
    needs = f"{calls_needed(0.99)} calls for p99, {calls_needed(0.999)} for p99.9"
    return (
        f"{calls}; ± is the larger half of p50's 95 % interval; "
        f"it takes {needs} (more with --seconds)"
    )


def warnings(record: BenchRecord) -> list[str]:
    """What makes the figures less sure, or the cascade not worth having, one sentence each."""
    few = [r for r in record.scenarios if r.latency.count < FEW_CALLS]
    found = doubts_of(record)
    curve = record.pictures.curve
    if curve:
        ends = [curve[index].ap for index in (0, -1)]
        ways = [record.measured.ways[index] for index in (0, -1)]
        told = no_better("AP", ends, ways, record.pictures.count)
        found += [told] if told else []
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


_OF_BRANCHES = {
    "The cascade": "Choosing",
    "the cascade": "choosing",
    "Do not cascade": "Do not choose",
    "the last exit's detector": "the dearest branch",
    "an easy image": "an image of the cheapest branch",
    "of the images are hard": "of the images take it and all others the cheapest",
}


def break_even_words(record: BenchRecord) -> str:
    """Up to which share of hard images the route is worth it; empty where that is not known."""
    model = record.model
    if model is None:
        return ""
    text = _break_even_by_model(model)
    if model.break_even is not None:
        measured = _break_even_measured(record, model.break_even, model.break_even_interval)
        text = f"{measured} {text}".rstrip()
    if record.measured.ways[0].startswith("branch"):
        for of_exits, of_branches in _OF_BRANCHES.items():
            text = text.replace(of_exits, of_branches)
    return text


def _break_even_measured(
    record: BenchRecord, share: float, ends: tuple[float, float] | None
) -> str:
    if share >= 1:
        unsure = f", or only {_up_to(ends[0])}, as the ratios vary" if ends and ends[0] < 1 else ""
        return (
            "The cascade is faster than the last exit's detector alone at any share of hard images"
            f"{unsure}."
        )
    if share <= 0:
        measured = record.measured
        easy = last_exit_ratios(record).get(measured.easiest or measured.ways[0])
        if easy is None:
            return "Do not cascade: the last exit's detector alone is faster at any share."
        unsure = ", which may be chance" if easy.low <= 1 else ""
        return (
            f"Do not cascade: even an easy image takes {number(easy.median)} times as long as the "
            f"last exit's detector alone ({interval(easy)}{unsure}; measured, batch 1)."
        )
    return (
        "The cascade is faster than the last exit's detector alone "
        f"as long as fewer than {_between(share)} of the images are hard "
        f"({_ends(ends)}measured, batch 1)."
    )


def last_exit_ratios(record: BenchRecord) -> dict[str, RatioEstimate]:
    """Side -> time of dyninfer over that of the last exit's detector alone; where measured."""
    ratios = record.baselines.ratios if record.baselines else ()
    return {entry.side: entry.ratio for entry in ratios if entry.baseline == LAST_EXIT}


def _between(share: float) -> str:
    """A share in per cent that reads neither as none nor as all."""
    return percent(min(max(share, 0.01), 0.99))


def _ends(ends: tuple[float, float] | None) -> str:
    """The interval of a break-even, with what follows it in brackets."""
    return (
        f"{percent(ends[0])} to {percent(ends[1])} by the intervals of the ratios; " if ends else ""
    )


def _break_even_by_model(model: LatencyModel) -> str:
    """An estimate, and none where nothing tells that the model predicts well."""
    if not model.is_tested:
        return ""
    intervals = model.break_even_intervals_by_batch
    shares = "; ".join(
        f"at batch {batch} {_up_to(share)}{_within(intervals.get(batch))}"
        for batch, share in model.break_even_by_batch.items()
    )
    never = model.break_even is None and max(model.break_even_by_batch.values(), default=1) <= 0
    return shares and (
        f"{'Do not cascade. ' if never else ''}Estimated by the model, the cascade is faster than "
        f"the last exit's detector alone: {shares}."
    )


def _within(ends: tuple[float, float] | None) -> str:
    """An estimate's interval, by the model's own error; empty where its ends are the same."""
    if ends is None or ends[0] == ends[1]:
        return ""
    return f" ({percent(ends[0])} to {percent(ends[1])} as far as the model is off)"


def _up_to(share: float) -> str:
    if share <= 0:
        return "never"
    return "at any share of hard images" if share >= 1 else f"up to {_between(share)} hard"
