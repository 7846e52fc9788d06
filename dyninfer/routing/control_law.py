"""The mathematics of online control: a threshold that follows the images, as pure functions.

A fixed threshold holds its hard fraction only while the images stay as they were when it was
calibrated. The controller takes its threshold from a rolling window of easiness instead, and
keeps account of what was spent above or below the goal (the debt), which moves the quantile
until it is paid back. That is quantile tracking with an integrated error that saturates, as in
Angelopoulos, Candès and Tibshirani, "Conformal PID Control", arXiv 2307.16895, section 2.

Since no image may take the debt beyond :func:`debt_bound`, the mean over any ``HORIZON``
successive images is within 2 * ``TOLERANCE`` of the goal (as a share of it) whatever the stream,
as long as that goal can be had at all. Where one image costs more than that, as of a goal of
less than 4.5 % hard images, it is within the cost of two images in ``HORIZON`` instead.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dyninfer.bundle.documents import first_problem
from dyninfer.errors import InputError
from dyninfer.routing.thresholds import SEND_ALL, SEND_NONE
from dyninfer.types import BoolArray

WINDOW = 100
"""How many of the last images' easiness the threshold is a quantile of."""
HORIZON = 1000
"""Images over which the goal is to hold."""
TOLERANCE = 0.022
"""Most debt, as a share of what ``HORIZON`` images may cost."""
EXITS = 2
"""It decides between an easy and a hard path."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_SLACK = 1.5  # debt kept while the goal cannot be had, in bounds: what is paid back later
_OUTLIER = 3.0  # a time beyond this many times the expected one counts as this many times


class Cost(str, Enum):
    """What is counted of every image."""

    HARD = "hard"
    """1 for a hard image, 0 for an easy one."""
    MS = "ms"
    """Its measured milliseconds."""
    LATE = "late"
    """1 for an image that took longer than a limit, 0 for others."""


_LEARNING_RATE = {Cost.HARD: 0.0, Cost.MS: 0.1, Cost.LATE: 0.02}
"""Weight of a new measurement in the running mean of its exit."""


@dataclass(frozen=True)
class ControlSettings:
    """What a controller holds: ``mean_cost`` of ``cost`` on average.

    With ``Cost.LATE``, ``limit_ms`` are the milliseconds that an image may take. Whatever the
    goal, the threshold is never below ``least_threshold`` (a certificate's).
    """

    cost: Cost
    mean_cost: float
    limit_ms: float = math.inf
    least_threshold: float = SEND_NONE


@dataclass(frozen=True)
class ControllerState:
    """All that a controller knows; immutable, and JSON by :meth:`to_dict`.

    Attributes:
        cost: what is counted; that of the settings.
        window: easiness of the last images, the oldest first, without NaN.
        debt: cost so far above (positive) or below the goal, of all images together.
        exit_costs: expected cost of an image on the easy and on the hard path.
        pending: images decided but not yet observed, easy and hard.
        pending_costs: what these were expected to cost in all, easy and hard.
        images, hard_images: how many were decided, and sent on.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    cost: Cost
    window: tuple[float, ...]
    exit_costs: tuple[float, float]
    debt: float
    pending: tuple[int, int]
    pending_costs: tuple[float, float]
    images: int
    hard_images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain: dict[str, Any] = TypeAdapter(ControllerState).dump_python(self, mode="json")
        return plain

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> ControllerState:
        """The state that :meth:`to_dict` described.

        Raises:
            InputError: a value is missing, unknown, of another kind, or not finite.
        """
        try:
            return TypeAdapter(cls).validate_python(payload)
        except ValidationError as error:
            raise InputError(
                f"a controller's state is not usable: {first_problem(error)}; expected what "
                "to_dict gave"
            ) from None


def initial_state(
    settings: ControlSettings, easiness: npt.ArrayLike, exit_costs: tuple[float, float]
) -> ControllerState:
    """A state that works from the first image on.

    The window is filled with quantiles of ``easiness`` (N,), NaN left out, in an order in which
    any run of them is spread evenly (multiples of the golden ratio), so that it stays balanced
    while the first images push it out.
    """
    values = np.asarray(easiness, np.float32)
    values = values[~np.isnan(values)]
    levels = ((np.arange(WINDOW) + 0.5) * _GOLDEN) % 1.0
    window = np.quantile(values, levels) if len(values) else np.empty(0)
    seeds = tuple(float(value) for value in window.astype(np.float32))
    return ControllerState(settings.cost, seeds, exit_costs, 0.0, (0, 0), (0.0, 0.0), 0, 0)


def debt_bound(settings: ControlSettings, exit_costs: tuple[float, float]) -> float:
    """Most debt, either way: ``TOLERANCE`` of the cost of ``HORIZON`` images.

    It is at least what one decision changes; less could not be kept.
    """
    return max(TOLERANCE * HORIZON * settings.mean_cost, abs(exit_costs[1] - exit_costs[0]))


def affordable_share(settings: ControlSettings, exit_costs: tuple[float, float]) -> float:
    """Share of hard images, in [0, 1], at which the expected cost is the goal."""
    easy, hard = exit_costs
    if hard <= settings.mean_cost:
        return 1.0
    if easy >= settings.mean_cost:
        return 0.0
    return (settings.mean_cost - easy) / (hard - easy)


def next_threshold(settings: ControlSettings, state: ControllerState) -> float:
    """The threshold that the next image meets: it is hard if its easiness is below."""
    return _threshold(settings, sorted(state.window), state.debt, state.exit_costs)


def _threshold(
    settings: ControlSettings, ordered: list[float], debt: float, costs: tuple[float, float]
) -> float:
    """As :func:`next_threshold`, from the sorted window."""
    bound = debt_bound(settings, costs)
    if debt + costs[1] - settings.mean_cost > bound:
        threshold = SEND_NONE
    elif debt + costs[0] - settings.mean_cost < -bound:
        threshold = SEND_ALL
    else:
        share = _indebted_share(affordable_share(settings, costs), debt / bound)
        threshold = _quantile(ordered, share, owes_hard=debt < 0)
    return max(threshold, settings.least_threshold)


def _indebted_share(share: float, debt: float) -> float:
    """The share to aim at with a ``debt`` in [-1, 1]: at 1 none, at -1 all, at 0 ``share``.

    The odds share / (1 - share) are multiplied by (1 - debt) / (1 + debt).
    """
    debt = min(max(debt, -1.0), 1.0)
    wanted, spared = share * (1 - debt), (1 - share) * (1 + debt)
    return wanted / (wanted + spared) if wanted + spared else share


def _quantile(ordered: list[float], share: float, *, owes_hard: bool) -> float:
    """The threshold below which a new value falls with probability ``share``.

    The k-th smallest of n values has a new one below it with probability k / (n + 1). Of images
    that tie with it, as all do for a constant router, as many are sent on as the debt asks for.
    """
    if share <= 0:
        return SEND_NONE
    if share >= 1:
        return SEND_ALL
    rank = round(share * (len(ordered) + 1))
    if rank == 0 and not owes_hard:
        return SEND_NONE
    if not ordered:  # nothing is known yet: as the debt asks for
        return SEND_ALL if owes_hard else SEND_NONE
    if rank > len(ordered):
        return SEND_ALL
    found = ordered[max(rank, 1) - 1]
    return math.nextafter(found, math.inf) if owes_hard else found


def decide(
    settings: ControlSettings, state: ControllerState, easiness: npt.ArrayLike
) -> tuple[BoolArray, ControllerState]:
    """Decide images (N,) one after the other: each moves the state that the next one meets.

    An easiness of NaN is hard, and counts, but does not enter the window.

    Returns:
        (N,) bool, True for hard images, and the state after the last.
    """
    values: list[float] = np.asarray(easiness, np.float32).tolist()
    window, ordered = list(state.window), sorted(state.window)
    costs, debt = state.exit_costs, state.debt
    limit = _SLACK * debt_bound(settings, costs)
    hard = np.zeros(len(values), np.bool_)
    for index, value in enumerate(values):
        is_hard = not value >= _threshold(settings, ordered, debt, costs)
        hard[index] = is_hard
        debt = min(max(debt + costs[is_hard] - settings.mean_cost, -limit), limit)
        if not math.isnan(value):
            window.append(value)
            bisect.insort(ordered, value)
            while len(window) > WINDOW:
                del ordered[bisect.bisect_left(ordered, window.pop(0))]
    sent = int(hard.sum())
    stayed = len(values) - sent
    easy_cost, hard_cost = state.pending_costs
    return hard, replace(
        state,
        window=tuple(window),
        debt=debt,
        pending=(state.pending[0] + stayed, state.pending[1] + sent),
        pending_costs=(easy_cost + stayed * costs[0], hard_cost + sent * costs[1]),
        images=state.images + len(values),
        hard_images=state.hard_images + sent,
    )


def observe(
    settings: ControlSettings, state: ControllerState, exits: npt.ArrayLike, ms: npt.ArrayLike
) -> ControllerState:
    """Replace what decided images were expected to cost by what they did cost.

    Of every image (N,) there are its exit, 0 or 1, and its milliseconds. These are NaN where they
    were not measured: such images count with the cost that was expected of them.

    Raises:
        InputError: the arrays do not fit each other, an exit is another, or a time infinite.
    """
    indices, times = np.asarray(exits, np.int64), np.asarray(ms, np.float64)
    if indices.shape != times.shape or indices.ndim != 1 or np.isinf(times).any():
        raise InputError(
            f"exits {indices.shape} and ms {times.shape} were observed, expected one exit and one "
            "finite time, or NaN, for each image"
        )
    if ((indices < 0) | (indices >= EXITS)).any():
        raise InputError(f"exits {sorted({*indices.tolist()})} were observed, expected 0 and 1")
    pending, expected = list(state.pending), list(state.pending_costs)
    costs, debt = list(state.exit_costs), state.debt
    for index, time in zip(indices.tolist(), times.tolist(), strict=True):
        # an image that was decided before a restore is not pending: it counts as expected
        share = expected[index] / pending[index] if pending[index] else costs[index]
        pending[index] = max(pending[index] - 1, 0)
        expected[index] = expected[index] - share if pending[index] else 0.0
        if math.isnan(time):
            continue
        cost = _cost_of(settings, time, costs[index])
        # one hiccup must not change all decisions
        capped = settings.cost is Cost.MS and costs[index] > 0
        usual = min(cost, _OUTLIER * costs[index]) if capped else cost
        costs[index] += _LEARNING_RATE[settings.cost] * (usual - costs[index])
        limit = _SLACK * debt_bound(settings, (costs[0], costs[1]))
        debt = min(max(debt + cost - share, -limit), limit)
    return replace(
        state,
        debt=debt,
        exit_costs=(costs[0], costs[1]),
        pending=(pending[0], pending[1]),
        pending_costs=(expected[0], expected[1]),
    )


def _cost_of(settings: ControlSettings, ms: float, hard: float) -> float:
    """Of an image that took ``ms``; ``hard`` is what it counts by its exit alone."""
    return {Cost.HARD: hard, Cost.MS: ms, Cost.LATE: float(ms > settings.limit_ms)}[settings.cost]
