"""The grammar of ``--speed``: a policy or goal as one word; nothing in it is ever evaluated."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dyninfer.errors import PolicyError
from dyninfer.routing.cost_bias import CostBias
from dyninfer.routing.goals import Accuracy, CertifiedRisk, Goal, HardFraction
from dyninfer.routing.latency import FramesPerSecond, LatencyBudget
from dyninfer.routing.macs import MacsBudget
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Chosen, Policy, Threshold
from dyninfer.routing.previous import PreviousFrame

_FORMS = (
    "easy, hard, 0.42, 30%, 12ms, 12ms@p95, 30fps, 2.5GMACs, ap-0.5, certified, chosen, bias=0.5, "
    "30%+adaptive, 12ms+nearest, 30%+previous, or a constructor such as HardFraction(0.3)"
)
_Speed = Policy | Goal
_WORD = r"[a-z][a-z-]*[a-z]"
_LONGEST = 200
_LARGEST_BARE = 2.0  # a threshold above is possible, but hardly what a number without unit means
_CLASSES: dict[str, Callable[..., _Speed]] = {
    made.__name__: made
    for made in (
        Threshold,
        AlwaysEasy,
        AlwaysHard,
        HardFraction,
        LatencyBudget,
        FramesPerSecond,
        MacsBudget,
        Accuracy,
        CertifiedRisk,
        Chosen,
        CostBias,
    )
}
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_SIMPLE: dict[str, Callable[..., _Speed]] = {  # N is a number, a space any white space or none
    "easy|fastest": AlwaysEasy,
    "hard|most-accurate": AlwaysHard,
    "certified|risk": CertifiedRisk,
    "chosen": Chosen,
    "(bias|cost-bias) = N": CostBias,
    "(bias|cost-bias) = -N": lambda bias: CostBias(-bias),
    "N gmacs|gmacs = N": MacsBudget,
    "N mmacs|mmacs = N": lambda mega: MacsBudget(mega / 1000),
    "N %|(hard|hard-fraction) = N %": lambda percent: HardFraction(percent / 100),
    "(hard|hard-fraction) = N": HardFraction,
    "N ms|ms = N|N ms @ pN": LatencyBudget,
    "N fps|fps = N": FramesPerSecond,
    "ap - N|(accuracy|max-ap-drop) = N": Accuracy,
    "threshold = N( , N)*": lambda *values: _threshold(values),
}


class _NotUnderstood(Exception):  # noqa: N818  # never leaves this module
    """The text is none of the forms."""


def parse_speed(text: str) -> Policy | Goal:
    """What a ``--speed`` asks for.

    Args:
        text: a word (``easy``, ``fastest``, ``hard``, ``most-accurate``, ``certified``,
            ``risk``, ``chosen``), a threshold or several separated by commas (``0.42``), a number
            with a unit (``30%``, ``12ms``, ``12ms@p95``, ``30fps``, ``2.5GMACs``, ``606MMACs``,
            ``ap-0.5``), ``name=value`` (``threshold``, ``hard``, ``hard-fraction``, ``ms``,
            ``fps``, ``gmacs``, ``mmacs``, ``bias``, ``accuracy``, ``max-ap-drop``), each possibly
            with ``+adaptive``, a budget or a rate with ``+nearest``, and last ``+previous`` for
            :class:`dyninfer.PreviousFrame`; or a constructor as in Python
            (``LatencyBudget(ms=12.0, percentile=95)``), so that a policy's ``repr`` is one too.

    Raises:
        PolicyError: it is none of them, or a number is out of range.
    """
    plain = text.strip()
    try:
        if len(plain) > _LONGEST:
            raise _NotUnderstood
        if re.fullmatch(r"\w+\s*\(.*\)", plain):
            return _construct(plain)
        form, *endings = re.split(rf"\s*\+\s*(?={'|'.join(_ENDINGS)})", plain.lower())
        speed = _simple(form)
        for ending in endings:
            if ending not in _ENDINGS or isinstance(speed, PreviousFrame):
                raise _NotUnderstood
            speed = _ENDINGS[ending](speed, text)
        return speed
    except _NotUnderstood:
        shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
        raise PolicyError(
            f"the speed {shown!r} is none of the forms{_suggestion(text)}; expected {_FORMS}"
        ) from None


def _simple(text: str) -> _Speed:
    """Every form but the constructors, in lower case."""
    numbers = [float(number) for number in re.findall(_NUMBER, text)]
    for form, make in _SIMPLE.items():
        if _has_form(text, form):
            return make(*numbers)
    if not _has_form(text, "N( , N)*"):
        raise _NotUnderstood
    # a number without a unit must be one that an easiness can be compared with
    if _LARGEST_BARE < max(numbers) < math.inf:
        raise PolicyError(
            f"the speed {text!r} has no unit, so it is a threshold, expected from 0 to just above "
            f"1; did you mean {text}%, {text}ms or {text}fps?"
        )
    return _threshold(numbers)


def _has_form(text: str, form: str) -> bool:
    pattern = form.replace(" ", r"\s*").replace("N", _NUMBER)
    return re.fullmatch(pattern, text) is not None


def _threshold(values: Sequence[float]) -> Threshold:
    if math.isinf(max(values)):
        raise _NotUnderstood
    return Threshold(tuple(values) if len(values) > 1 else values[0])


def _make_adaptive(speed: _Speed, text: str) -> _Speed:
    if isinstance(speed, (HardFraction, LatencyBudget, FramesPerSecond)):
        return replace(speed, adaptive=True)
    raise PolicyError(
        f"the speed {text!r} cannot be adaptive, expected a share of hard images, a budget in "
        "milliseconds or a rate before +adaptive"
    )


def _nearest(speed: _Speed, text: str) -> _Speed:
    if isinstance(speed, (LatencyBudget, FramesPerSecond, MacsBudget)):
        return replace(speed, on_impossible="nearest")
    raise PolicyError(
        f"the speed {text!r} has no nearest, expected a budget in milliseconds or GMACs or a rate "
        "before +nearest"
    )


_ENDINGS: dict[str, Callable[[_Speed, str], _Speed]] = {
    "adaptive": _make_adaptive,
    "nearest": _nearest,
    "previous": lambda speed, _: PreviousFrame(speed),
}


def _construct(text: str) -> _Speed:
    """A class by its name, with arguments that are literals: ``a``, ``b=c``."""
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise _NotUnderstood
        positional = [_literal(argument) for argument in call.args]
        named = {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
        return _CLASSES[call.func.id](*positional, **named)
    except (SyntaxError, ValueError, TypeError, KeyError, MemoryError, RecursionError):
        raise _NotUnderstood from None


def _literal(node: ast.expr) -> Any:
    """A number, True, False, None, a choice of words, or a tuple or list of numbers."""
    value = ast.literal_eval(node)
    if value in ("raise", "nearest"):
        return value
    parts = value if isinstance(value, (tuple, list)) and value else (value,)
    if not all(part is None or isinstance(part, (int, float)) for part in parts):
        raise _NotUnderstood
    return tuple(value) if isinstance(value, list) else value


def _suggestion(text: str) -> str:
    """The known word nearest to the text's longest one, if there is one."""
    words = re.findall(_WORD, " ".join(_SIMPLE))
    known = {word.lower(): word for word in (*_CLASSES, *_ENDINGS, *words)}
    found = re.findall(_WORD, text[:_LONGEST].lower())
    longest = max(found, key=len, default="")
    near = difflib.get_close_matches(longest, known, n=1, cutoff=0.5)
    return f" (did you mean {known[near[0]]}?)" if near and near[0] != longest else ""
