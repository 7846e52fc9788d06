"""The published evolution: parents drawn, children mutated, the best of all kept."""

from __future__ import annotations

import bisect
import random
from dataclasses import dataclass

from dyninfer.errors import InputError
from dyninfer.search.budgets import Budgets, Candidate, Measure
from dyninfer.search.score import score_of
from dyninfer.search.space import START, Space
from dyninfer.search.structure import Structure

POPULATION = 256
EVALUATIONS = 100_000
SEED = 13


@dataclass(frozen=True)
class Settings:
    """What a search depends on, but for how long it goes on.

    After ``fine_after`` evaluations only channels change, neither depths nor kernels; None for
    never. Budgets must have one beside that of layers.
    """

    budgets: Budgets
    measure: Measure
    start: Structure = START
    seed: int = SEED
    fine_after: int | None = None


class Search:
    """A search that can stop and go on after any evaluation.

    An evaluation is a child of a parent drawn from the population, whether or not it is within the
    budgets or known already. The same seed makes the same search.

    Attributes:
        evaluations: how many there were.
        population: candidates within the budgets, no two the same, the best first; 256 at most.
        front: of all candidates within the budgets those that no other surpasses in score at no
            higher a cost, the cheapest first; see :meth:`price`.
        rng: what all choices are drawn from.
    """

    def __init__(self, settings: Settings) -> None:
        """Begin with the start network.

        Raises:
            InputError: it exceeds a budget, or has grouped convolutions, which no mutation keeps.
        """
        start = settings.start
        if any(block.groups > 1 for block in start.blocks):
            raise InputError("the start network has grouped convolutions, expected none")
        cost, latency_ms = settings.measure.of(start)
        if problems := settings.budgets.exceeded(cost, latency_ms):
            height, width = settings.measure.image_size
            raise InputError(
                f"the start network has, at {height}x{width}, {'; '.join(problems)}: raise that "
                "budget, take a smaller image size, or start from a smaller network"
            )
        self.settings, self.evaluations = settings, 0
        self.rng = random.Random(settings.seed)
        self.population = [Candidate(start, score_of(start), cost, latency_ms)]
        self.front = list(self.population)
        self._space = Space(settings.budgets.layers, min(settings.measure.image_size))
        self._known = {start}

    @property
    def best(self) -> Candidate:
        """Of the highest score."""
        return self.population[0]

    def price(self, candidate: Candidate) -> float:
        """What the front compares by: the first budget of latency, flops and parameters."""
        budgets = self.settings.budgets
        if budgets.latency_ms is not None and candidate.latency_ms is not None:
            return candidate.latency_ms
        return candidate.cost.parameters if budgets.flops is None else candidate.cost.flops

    def advance(self, evaluations: int) -> None:
        """Go on until there were as many evaluations."""
        budgets, measure = self.settings.budgets, self.settings.measure
        fine_after = self.settings.fine_after
        while self.evaluations < evaluations:
            fine = fine_after is not None and self.evaluations >= fine_after
            self.evaluations += 1
            parent = self.rng.choice(self.population).structure
            child = self._space.mutated(parent, self.rng, fine=fine)
            if child in self._known:
                continue
            cost, latency_ms = measure.of(child)
            if not budgets.exceeded(cost, latency_ms):
                self.add(Candidate(child, score_of(child), cost, latency_ms))

    def restore(self, population: list[Candidate], front: list[Candidate]) -> None:
        """Take what another search had come to."""
        self.population, self.front = population, front
        self._known = {candidate.structure for candidate in population}

    def add(self, candidate: Candidate) -> None:
        """A new candidate within the budgets joins the population and the front, if it is worth it.

        Of two with the same score, the one that came first is kept.
        """
        worth = -candidate.score
        place = bisect.bisect_right(self.population, worth, key=lambda other: -other.score)
        if place < POPULATION:
            self.population.insert(place, candidate)
            self._known.add(candidate.structure)
            for left in self.population[POPULATION:]:
                self._known.discard(left.structure)
            del self.population[POPULATION:]
        self._add_to_front(candidate)

    def _add_to_front(self, candidate: Candidate) -> None:
        price = self.price(candidate)
        place = bisect.bisect_right(self.front, price, key=self.price)
        if place and self.front[place - 1].score >= candidate.score:
            return
        end = place
        while end < len(self.front) and self.front[end].score <= candidate.score:
            end += 1
        while place and self.price(self.front[place - 1]) == price:
            place -= 1
        self.front[place:end] = [candidate]
