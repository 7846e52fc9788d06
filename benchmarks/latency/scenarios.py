"""Which scenarios are run: the product of what was asked for, as far as the bundle allows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.bundle.manifest import CascadeRoute, Manifest, SelectRoute
from dyninfer.errors import PolicyError

MIXED = (0.5,)
"""Hard fractions between those of the ends, where nobody says which."""


@dataclass(frozen=True)
class Choices:
    """What to vary.

    Attributes:
        batches: images in a call.
        hard: hard fractions; None for every way, and for those fractions that suit the bundle.
        concurrency: callers at once.
        rates: calls a second, each with batch 1; none for closed loops only.
        decode: also decode pictures from their files, with batch 1 and one caller.
        as_routed: also let the detector's own policy decide; where a chooser does, that is
            measured in any case, since the mixture of its branches is what is used.
    """

    batches: tuple[int, ...] = (1, 8)
    hard: tuple[float, ...] | None = None
    concurrency: tuple[int, ...] = (1,)
    rates: tuple[float, ...] = ()
    decode: bool = False
    as_routed: bool = False


def make_scenarios(manifest: Manifest, choices: Choices, name: str = "") -> tuple[Scenario, ...]:
    """Every scenario once, in the order in which they are shown.

    A refusal calls the bundle ``name``, by default as its manifest does.

    Raises:
        PolicyError: a fraction is asked for that the bundle cannot be made to follow.
    """
    routes = _routes(manifest, choices, name or manifest.name)
    product = [
        replace(route, batch=batch, concurrency=callers)
        for callers in choices.concurrency
        for batch in choices.batches
        for route in routes
    ]
    if choices.decode:
        product += [replace(route, decode=True) for route in routes]
    product += [
        replace(route, concurrency=callers, rate_per_s=rate)
        for rate in choices.rates
        for callers in choices.concurrency
        for route in routes
    ]
    return tuple(dict.fromkeys(product))


def _routes(manifest: Manifest, choices: Choices, name: str) -> tuple[Scenario, ...]:
    """Who decides, and for what, in scenarios of single images."""
    if choices.hard is not None:
        _check_fractions(manifest, choices.hard, name)
        forced = [_fraction(manifest, share) for share in choices.hard]
    else:
        mixable = isinstance(manifest.route, CascadeRoute) and manifest.routed
        ways = [_way(manifest, index) for index in range(len(manifest.ways))]
        mixed = [Scenario(hard_fraction=share) for share in MIXED if mixable]
        forced = [*ways[:-1], *mixed, ways[-1]]
    chosen = isinstance(manifest.route, SelectRoute)
    own = manifest.routed and (choices.as_routed or chosen)
    return (*forced, *([Scenario()] if own else []))


def _way(manifest: Manifest, index: int) -> Scenario:
    """All images on one way; see :attr:`Scenario.way` for the ends of a cascade."""
    last = len(manifest.ways) - 1
    if isinstance(manifest.route, CascadeRoute) and index in (0, last):
        return Scenario(hard_fraction=float(index == last))
    return Scenario(way=manifest.way_names[index])


def _fraction(manifest: Manifest, share: float) -> Scenario:
    if share in (0.0, 1.0):
        return _way(manifest, len(manifest.ways) - 1 if share else 0)
    return Scenario(hard_fraction=share)


def _check_fractions(manifest: Manifest, shares: tuple[float, ...], name: str) -> None:
    if len(manifest.ways) == 1 and shares != (1.0,):
        raise PolicyError(
            f"{name} has one exit, so there is no hard fraction to vary; leave --hard out"
        )
    strange = [share for share in shares if share not in (0.0, 1.0)]
    if strange and not manifest.routed:
        raise PolicyError(
            f"{name} has no router, so all images are easy or all hard: a hard "
            f"fraction of {strange[0]:g} is not possible; give --hard 0,100%, or train a "
            "router with dyninfer fit-router"
        )
