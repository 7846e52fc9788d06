"""What a searched backbone may cost, and how much a candidate does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dyninfer.errors import InputError
from dyninfer.search.cost import Cost, cost_of
from dyninfer.search.structure import Structure

LAYERS = 91


class Latencies(Protocol):
    """What is known of a device, for images of ``image_size`` (height, width)."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Of whose it tells the latency."""
        ...

    @property
    def sha256(self) -> str:
        """Of all that it knows."""
        ...

    def latency_ms(self, structure: Structure) -> float:
        """Milliseconds of one picture."""
        ...


@dataclass(frozen=True)
class Budgets:
    """Upper limits, all of which must hold; None for no limit.

    ``flops`` is in the unit of :class:`dyninfer.search.cost.Cost`, ``latency_ms`` that of a picture
    by a device's table.
    """

    flops: int | None = None
    parameters: int | None = None
    latency_ms: float | None = None
    layers: int = LAYERS

    def exceeded(self, cost: Cost, latency_ms: float | None) -> list[str]:
        """What is too much, in words."""
        found = []
        for name, limit, value in (
            ("flops", self.flops, cost.flops),
            ("parameters", self.parameters, cost.parameters),
            ("layers", self.layers, cost.layers),
        ):
            if limit is not None and value > limit:
                found.append(f"{value:,} {name}, more than the budget of {limit:,}")
        if self.latency_ms is not None and latency_ms is not None and latency_ms > self.latency_ms:
            found.append(f"{latency_ms:.4g} ms, more than the budget of {self.latency_ms:.4g} ms")
        return found


@dataclass(frozen=True)
class Candidate:
    """A structure with its score and what it costs; ``latency_ms`` where a table tells it."""

    structure: Structure
    score: float
    cost: Cost
    latency_ms: float | None = None


@dataclass(frozen=True)
class Measure:
    """What structures cost for an image of ``image_size`` (height, width) on a device.

    Raises:
        InputError: the device's latencies are of images of another size.
    """

    image_size: tuple[int, int]
    table: Latencies | None = None

    def __post_init__(self) -> None:
        if self.table is not None and self.table.image_size != self.image_size:
            own, its = ("x".join(map(str, s)) for s in (self.image_size, self.table.image_size))
            raise InputError(
                f"the image size is {own}, but the device table was measured at {its}: leave the "
                f"image size out, or measure with dyninfer bench --blocks --image-size {own}"
            )

    def of(self, structure: Structure) -> tuple[Cost, float | None]:
        """Its cost, and its milliseconds where there is a table.

        Raises:
            InputError: a side is no multiple of 32, or the table knows no block like one of these.
        """
        latency_ms = None if self.table is None else self.table.latency_ms(structure)
        return cost_of(structure, self.image_size), latency_ms
