from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.cli.options import SpeedOption
from dyninfer.errors import PolicyError
from dyninfer.routing.cost_bias import CostBias
from dyninfer.routing.goals import Accuracy, CertifiedRisk, Goal, HardFraction
from dyninfer.routing.latency import FramesPerSecond, LatencyBudget
from dyninfer.routing.macs import MacsBudget
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Chosen, Policy, Threshold
from dyninfer.routing.speed import parse_speed
from tests import support

relaxed = settings(deadline=None)
SHARE = st.floats(0, 1)
POSITIVE = st.floats(1e-3, 1e6)
PERCENTILE = st.none() | st.floats(0.1, 99.9)
VALUE = st.floats(0, 1.5)
SPEEDS = st.one_of(
    st.just(AlwaysEasy()),
    st.just(AlwaysHard()),
    st.just(CertifiedRisk()),
    st.builds(Threshold, VALUE | st.lists(VALUE, min_size=1, max_size=4)),
    st.builds(HardFraction, SHARE, st.booleans()),
    st.builds(LatencyBudget, POSITIVE, PERCENTILE, st.booleans()),
    st.builds(FramesPerSecond, POSITIVE, st.booleans()),
    st.builds(Accuracy, st.floats(0, 100)),
    st.just(Chosen()),
    st.builds(CostBias, st.floats(-1e6, 1e6)),
    st.builds(MacsBudget, POSITIVE, st.sampled_from(["raise", "nearest"])),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("easy", AlwaysEasy()),
        ("fastest", AlwaysEasy()),
        ("hard", AlwaysHard()),
        ("most-accurate", AlwaysHard()),
        ("Most-Accurate", AlwaysHard()),
        ("certified", CertifiedRisk()),
        ("risk", CertifiedRisk()),
        ("0.42", Threshold(0.42)),
        (" .42 ", Threshold(0.42)),
        ("0", Threshold(0)),
        ("1.0001", Threshold(1.0001)),
        ("2", Threshold(2)),
        ("threshold=30", Threshold(30)),
        ("threshold=0.42", Threshold(0.42)),
        ("0.2,0.4", Threshold((0.2, 0.4))),
        ("threshold = 0.2, 0.4", Threshold((0.2, 0.4))),
        ("30%", HardFraction(0.3)),
        ("12.5 %", HardFraction(0.125)),
        ("hard=0.3", HardFraction(0.3)),
        ("hard=30%", HardFraction(0.3)),
        ("hard-fraction=0.3", HardFraction(0.3)),
        ("30%+adaptive", HardFraction(0.3, adaptive=True)),
        ("hard=0.3 + adaptive", HardFraction(0.3, adaptive=True)),
        ("12ms", LatencyBudget(12)),
        ("12.5 ms", LatencyBudget(12.5)),
        ("ms=12", LatencyBudget(12)),
        ("12MS@P95", LatencyBudget(12, 95)),
        ("12ms@p99.9+adaptive", LatencyBudget(12, 99.9, adaptive=True)),
        ("30fps", FramesPerSecond(30)),
        ("fps=30", FramesPerSecond(30)),
        ("29.97fps+adaptive", FramesPerSecond(29.97, adaptive=True)),
        ("ap-0.5", Accuracy(0.5)),
        ("AP-0.5", Accuracy(0.5)),
        ("accuracy=0.5", Accuracy(0.5)),
        ("max-ap-drop=.5", Accuracy(0.5)),
        ("HardFraction(0.3)", HardFraction(0.3)),
        ("HardFraction(0.3, adaptive=True)", HardFraction(0.3, adaptive=True)),
        ("HardFraction( fraction = 0.3 , adaptive = False )", HardFraction(0.3)),
        ("HardFraction(0.3,True)", HardFraction(0.3, adaptive=True)),
        ("LatencyBudget(ms=12.0, percentile=95)", LatencyBudget(12, 95)),
        ("LatencyBudget(12, None, False)", LatencyBudget(12)),
        ("Threshold([0.1, 0.2])", Threshold((0.1, 0.2))),
        ("Threshold(value=(0.1,))", Threshold((0.1,))),
        ("AlwaysHard()", AlwaysHard()),
        ("CertifiedRisk()", CertifiedRisk()),
        ("2.5GMACs", MacsBudget(2.5)),
        ("2.5 gmacs + nearest", MacsBudget(2.5, on_impossible="nearest")),
        ("gmacs=2.5", MacsBudget(2.5)),
        ("606MMACs", MacsBudget(0.606)),
        ("mmacs = 606", MacsBudget(0.606)),
        ("MacsBudget(gmacs=2.5)", MacsBudget(2.5)),
        ("chosen", Chosen()),
        ("bias=0.5", CostBias(0.5)),
        ("cost-bias = -0.5", CostBias(-0.5)),
        ("CostBias(-1)", CostBias(-1)),
    ],
)
def test_every_form_is_understood(text, expected) -> None:
    assert parse_speed(text) == expected


@relaxed
@given(SPEEDS)
def test_what_python_shows_is_a_form(speed) -> None:
    assert parse_speed(repr(speed)) == speed


@relaxed
@given(st.integers(0, 100))
def test_a_percentage_is_that_share(percent) -> None:
    assert parse_speed(f"{percent}%") == HardFraction(percent / 100)


@relaxed
@given(st.text(max_size=30) | st.text("HardFraction(0.3,adptive=True)%ms@p+ ", max_size=30))
def test_any_text_is_a_speed_or_refused_in_one_line(text) -> None:
    refusal = ""
    try:
        speed = parse_speed(text)
    except PolicyError as error:
        speed, refusal = None, str(error)
    assert isinstance(speed, (Policy, Goal)) or refusal
    assert "\n" not in refusal


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("eazy", "easy"),
        ("hardd", "hard"),
        ("most-acurate", "most-accurate"),
        ("certfied", "certified"),
        ("thresold=0.4", "threshold"),
        ("acuracy=0.5", "accuracy"),
        ("30%+adaptiv", "adaptive"),
        ("HardFration(0.3)", "HardFraction"),
        ("latencybudgets(12)", "LatencyBudget"),
    ],
)
def test_a_misspelling_is_recognised(text, meant) -> None:
    with support.refuses(PolicyError, repr(text), f"did you mean {meant}?", "30%", "12ms@p95"):
        parse_speed(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nan",
        "inf",
        "-0.1",
        "1e999",
        "12s",
        "12ms@95",
        "30%+adaptively",
        "30%+previous+adaptive",
        "0.2,",
        ",",
        "hard=",
        "=0.3",
        "HardFraction()",
        "HardFraction(0.3",
        "HardFraction(0.1, 0.2, 0.3)",
        "HardFraction(0.3, fraction=0.3)",
        "HardFraction(fraction=0.3, True)",
        "HardFraction(share=0.3)",
        "HardFraction(0.1 + 0.2)",
        "HardFraction(HardFraction(0.3))",
        "HardFraction(fraction='0.3')",
        "Threshold(())",
        "Threshold(0.5)(1)",
        "Threshold(0.5) + Threshold(0.6)",
        "LatencyBudget(12, adaptive=True, 95)",
        "__import__('os').system('true')",
        "print(1)",
        "9" * 1000,
    ],
)
def test_other_texts_are_refused_with_the_forms(text) -> None:
    with support.refuses(PolicyError, "none of the forms", "easy", "30%", "HardFraction(0.3)"):
        parse_speed(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("12ms+nearest", LatencyBudget(12, on_impossible="nearest")),
        ("12ms@p95 + Nearest", LatencyBudget(12, 95, on_impossible="nearest")),
        ("30fps+adaptive+nearest", FramesPerSecond(30, True, "nearest")),
        ("30fps+nearest+adaptive", FramesPerSecond(30, True, "nearest")),
    ],
)
def test_a_budget_may_take_the_nearest(text, meant) -> None:
    assert parse_speed(text) == meant
    assert parse_speed(repr(meant)) == meant
    for other in ("30%+nearest", "easy+nearest", "12ms+nearest+soon"):
        with pytest.raises(PolicyError):
            parse_speed(other)


@pytest.mark.parametrize("text", ["easy", "hard", "0.42", "ap-0.5", "certified"])
def test_what_cannot_be_adaptive_is_refused(text) -> None:
    with support.refuses(PolicyError, text, "cannot be adaptive"):
        parse_speed(f"{text}+adaptive")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("130%", "from 0 to 1"),
        ("hard=30", "0.3 for 30%"),
        ("0ms", "above 0"),
        ("12ms@p100", "percentile is 100"),
        ("0fps", "above 0"),
        ("ap-200", "from 0 to 100"),
        ("1e999ms", "inf"),
        ("HardFraction(None)", "None"),
        ("30", "30%, 30ms or 30fps"),
        ("0.3,12", "just above 1"),
        ("HardFraction(0.3, adaptive=1)", "True or False"),
    ],
)
def test_numbers_out_of_range_are_refused_by_what_they_are_for(text, said) -> None:
    with support.refuses(PolicyError, said, "expected"):
        parse_speed(text)


def test_the_forms_that_help_names_are_real() -> None:
    option = SpeedOption.__metadata__[0]
    for text in ("easy", "hard", "30%", "12ms", "12ms@p95", "30fps", "ap-0.5", "certified", "0.42"):
        assert text in option.help
        parse_speed(text)


def test_texts_of_up_to_200_characters_are_read_and_shown_whole() -> None:
    assert parse_speed("0." + "4" * 198) == Threshold(4 / 9)
    assert parse_speed(f" 0.{'4' * 198} ") == Threshold(4 / 9)
    with support.refuses(PolicyError, "none of the forms"):
        parse_speed("0." + "4" * 199)
    for length, shown in ((200, repr("9" * 199 + "s")), (201, repr("9" * 200 + "..."))):
        with support.refuses(PolicyError, f"the speed {shown} is none of the forms"):
            parse_speed("9" * (length - 1) + "s")


@pytest.mark.parametrize(("text", "is_threshold"), [("2", True), ("2.01", False), ("0.1,2", True)])
def test_a_number_without_a_unit_is_a_threshold_up_to_2(text, is_threshold) -> None:
    if is_threshold:
        assert isinstance(parse_speed(text), Threshold)
        return
    with support.refuses(PolicyError, f"did you mean {text}%, {text}ms or {text}fps?"):
        parse_speed(text)


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("easy peasy", "easy"),
        ("qqqqqq", ""),
        ("12 x", ""),
        ("hard rightnow", ""),
        ("harrd 12", "hard"),
    ],
)
def test_a_word_is_suggested_where_one_is_near_and_another(text, suggestion) -> None:
    with pytest.raises(PolicyError) as error:
        parse_speed(text)
    told = f" (did you mean {suggestion}?)" if suggestion else ""
    assert str(error.value).startswith(f"the speed {text!r} is none of the forms{told};")
