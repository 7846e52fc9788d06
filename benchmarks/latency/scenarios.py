"""Which scenarios are run: the product of what was asked for, as far as the bundle allows it."""

from __future__ import annotations

from dataclasses import dataclass

from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.bundle.manifest import Manifest, Task
from dyninfer.errors import InputError, PolicyError

DEFAULT_HARD = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Choices:
    """What to vary.

    Attributes:
        batches: images in a call.
        hard: hard fractions; None for those that suit the bundle.
        concurrency: callers at once.
        rates: calls a second, each with batch 1; none for closed loops only.
        decode: also decode pictures from their files, with batch 1 and one caller.
        as_routed: also let the detector's own policy decide.
    """

    batches: tuple[int, ...] = (1, 8)
    hard: tuple[float, ...] | None = None
    concurrency: tuple[int, ...] = (1,)
    rates: tuple[float, ...] = ()
    decode: bool = False
    as_routed: bool = False


def check_measurable(manifest: Manifest) -> None:
    """Refuse what a call with pictures cannot run.

    Raises:
        InputError: the bundle classifies.
    """
    if manifest.task is not Task.DETECT:
        raise InputError(
            f"{manifest.name} classifies; dyninfer bench times detectors, from picture to "
            "detections: time detector.infer yourself"
        )


def make_scenarios(manifest: Manifest, choices: Choices, name: str = "") -> tuple[Scenario, ...]:
    """Every scenario once, in the order in which they are shown.

    A bundle of one exit has one way to go, so no fraction is varied there. A refusal calls the
    bundle ``name``, by default as its manifest does.

    Raises:
        PolicyError: a fraction is asked for that the bundle cannot be made to follow.
    """
    shares = _shares(manifest, choices, name or manifest.name)
    product = [
        Scenario(batch, share, callers)
        for callers in choices.concurrency
        for batch in choices.batches
        for share in shares
    ]
    if choices.decode:
        product += [Scenario(1, share, decode=True) for share in shares]
    product += [
        Scenario(1, share, callers, rate_per_s=rate)
        for rate in choices.rates
        for callers in choices.concurrency
        for share in shares
    ]
    return tuple(dict.fromkeys(product))


def _shares(manifest: Manifest, choices: Choices, name: str) -> tuple[float | None, ...]:
    routed = manifest.routed
    if len(manifest.ways) == 1:
        if choices.hard not in (None, (1.0,)):
            raise PolicyError(
                f"{name} has one exit, so there is no hard fraction to vary; leave --hard out"
            )
        return (1.0,)
    if not routed:
        ends = (0.0, 1.0) if choices.hard is None else choices.hard
        if strange := [share for share in ends if share not in (0.0, 1.0)]:
            raise PolicyError(
                f"{name} has no router, so all images are easy or all hard: a hard "
                f"fraction of {strange[0]:g} is not possible; give --hard 0,100%, or train a "
                "router with dyninfer fit-router"
            )
        return ends
    own: tuple[float | None, ...] = (None,) if choices.as_routed else ()
    return (*(DEFAULT_HARD if choices.hard is None else choices.hard), *own)
