"""The search for a student that is fast enough: mutate, inherit, teach for a while, time, keep.

The frame is that of Joint-DetNAS (Yao et al., CVPR 2021): students inherit weights, and a teacher
that suits them is taken from an elastic pool. Its actions, schedule and criteria were not to be
found; all of these are ours:

1. The base becomes the super-network (:mod:`dyninfer.exporters.slim.elastic`).
2. Students: each is a mutated parent, drawn among the best that are fast enough for now. What is
   fast enough falls from the base's latency to the target in the first half of the search.
3. The best student within the target is taught for the rest of the budget.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch

from dyninfer.errors import InputError
from dyninfer.exporters.slim.elastic import (
    best_teacher,
    detector_of,
    measured,
    teacher_pool,
    train_elastic,
)
from dyninfer.exporters.slim.estimate import Estimate
from dyninfer.exporters.slim.judging import precision_of
from dyninfer.exporters.slim.learning import BATCH, Budget, teach
from dyninfer.exporters.slim.mutations import probes, shrunk
from dyninfer.exporters.slim.pictures import Batch
from dyninfer.exporters.slim.stopwatch import FINAL_ROUNDS, Latency
from dyninfer.exporters.slim.task import Task
from dyninfer.exporters.zendet.detector import Detector
from dyninfer.exporters.zendet.morphism import ZenDetStudent

STUDENTS = 12
"""Students that a budget is shared out among."""
_TEACHER, _SEARCH = 0.15, 0.4  # shares of the budget; the rest is the best student's
_PARENTS = 4
_LEAST_SECONDS = 0.1  # of the best student's, where the search has used up all others
_MARGIN = 0.97  # of the target, that a measurement's chance may not decide
_AIM, _LOWEST_AIM = 0.9, 0.3  # of what is fast enough, that a student is mutated for
_BEGUN = 0.3  # of the way to the target, which the first student is to go
_REACHED = 0.5  # share of the search, from which on students are to reach it

Progress = Callable[[str, float], None]
"""Is told what is done, and how much of the budget is used up, from 0 to 1."""


@dataclass(frozen=True)
class Candidate:
    """A student that was taught, its AP in [0, 1] on pictures held back, and how it was made."""

    student: ZenDetStudent
    ap: float
    latency: Latency
    changes: tuple[str, ...] = ()


@dataclass
class Search:
    """A search on its way; :meth:`run` goes through it, and tells ``on_best`` of what to keep.

    Attributes:
        candidates: all students so far, the base first.
        whole_ap: the AP of the base when it has been trained on, as the whole super-network.
    """

    task: Task
    budget: Budget
    progress: Progress
    on_best: Callable[[Candidate], None]
    candidates: list[Candidate] = field(default_factory=list)
    whole_ap: float = math.nan

    def __post_init__(self) -> None:
        self._rng, self._aim = random.Random(self.task.seed), _AIM
        self._estimate = Estimate(self.task.source, self.task.image_size)
        self._batches: Iterator[Batch] = self.task.learned.batches(BATCH, self.task.seed)
        torch.manual_seed(self.task.seed)

    @property
    def base(self) -> Candidate:
        """What students are compared with."""
        return self.candidates[0]

    @property
    def best(self) -> Candidate | None:
        """Of the highest AP among those surely within the target, or else just within it."""
        for most in (_MARGIN, 1.0):
            if fit := [each for each in self.candidates[1:] if self._excess(each) <= most]:
                return max(fit, key=lambda each: each.ap)
        return None

    def run(self) -> Candidate:
        """Search until the budget is used up.

        Raises:
            InputError: the base is within the target, or no student was; the fastest is kept.
        """
        self.progress("judging the base", 0.0)
        latency = self.task.stopwatch.time_base()
        self.candidates.append(
            Candidate(self.task.source, self._precision(self.task.source), latency)
        )
        if self._excess(self.base) <= 1:
            raise InputError(
                f"the base takes {self.base.latency.ms:.3g} ms, within the target already: "
                "export it as it is, or give a lower target (--target-latency)"
            )
        self._estimate.add(self.task.source, 1.0)
        for probe in probes(self.task.source):
            self._estimate.add(probe, self.task.stopwatch.time(probe).ratio.median)
        pool = self._train_teachers(self._share(_TEACHER))
        self._search(pool, self._share(_SEARCH))
        return self._finish(pool)

    def _train_teachers(self, part: Budget) -> list[Detector]:
        said = self._said("training the elastic teacher")
        whole = train_elastic(self.task.source, self._batches, part, self._rng, said)
        pool = teacher_pool(whole, self._batches, self._rng)
        self.whole_ap = self._precision(ZenDetStudent.of(pool[0]))
        return pool

    def _search(self, pool: list[Detector], part: Budget) -> None:
        """Students until the part of the budget is used up, or all of it while none is fit."""
        for number in itertools.count(1):
            goal = self._goal(part.progress)
            parent = self._rng.choice(self._parents(goal))
            # what the estimate is off by for the parent, it is off by for its children
            off = self._estimate(parent.student) / parent.latency.ratio.median
            student, changes = shrunk(
                parent.student, self._estimate, self._aim * goal * off, self._rng
            )
            words = f"student {number}"
            self.progress(f"timing {words}", self.budget.progress)
            latency = self.task.stopwatch.time(student)
            self._estimate.add(student, latency.ratio.median)
            # a student that still misses makes the next aim lower
            missed = latency.ratio.median / goal
            self._aim = min(_AIM, max(_LOWEST_AIM, self._aim / missed))
            own = Budget(
                None if part.steps is None else part.steps // STUDENTS, part.seconds / STUDENTS
            )
            taught = self._taught(student, pool, own, f"teaching {words}")
            part.done += own.done
            before = self.best
            self.candidates.append(
                Candidate(taught, self._precision(taught), latency, (*parent.changes, *changes))
            )
            if self.best is not None and self.best is not before:
                self.on_best(self.best)
            ready = part.progress if self.best is not None else self.budget.progress
            if ready >= 1:
                return

    def _finish(self, pool: list[Detector]) -> Candidate:
        chosen = self.best
        if chosen is None:
            nearest = min(self.candidates[1:], key=self._excess)
            self.on_best(nearest)
            raise InputError(
                "no student came within the target: the fastest, which is kept, takes "
                f"{nearest.latency.ms:.3g} ms, the base {nearest.latency.base_ms:.3g} "
                f"({nearest.latency.ratio.median:.2f} of it); slim that one, give more time "
                "(--minutes), or a higher target (--target-latency)"
            )
        seconds = self.budget.seconds - (time.monotonic() - self.budget.began)
        part = Budget(self._share(1 - _TEACHER - _SEARCH).steps, max(seconds, _LEAST_SECONDS))
        taught = self._taught(chosen.student, pool, part, "teaching the best student")
        self.progress("timing the best student", 1.0)
        latency = self.task.stopwatch.time(taught, FINAL_ROUNDS)
        done = Candidate(taught, self._precision(taught), latency, chosen.changes)
        if done.ap < chosen.ap:
            done = replace(chosen, latency=latency)
        self.on_best(done)
        return done

    def _taught(
        self, student: ZenDetStudent, pool: list[Detector], part: Budget, words: str
    ) -> ZenDetStudent:
        detector = measured(student, self._batches)
        teacher = best_teacher(pool, detector, next(self._batches))
        teach(detector, teacher, self._batches, part, self._said(words))
        return student.trained(detector)

    def _parents(self, goal: float) -> list[Candidate]:
        """The best of those that are fast enough for now, or else the fastest."""
        fit = [each for each in self.candidates if each.latency.ratio.median <= goal / _MARGIN]
        if not fit:
            return [min(self.candidates, key=lambda each: each.latency.ratio.median)]
        return sorted(fit, key=lambda each: -each.ap)[:_PARENTS]

    def _goal(self, progress: float) -> float:
        """The share of the base's time that the next student is to take."""
        end = _MARGIN / self._excess(self.base)
        return 1 - (1 - end) * min(1.0, _BEGUN + (1 - _BEGUN) * progress / _REACHED)

    def _excess(self, candidate: Candidate) -> float:
        return self.task.target.excess(candidate.latency)

    def _precision(self, student: ZenDetStudent) -> float:
        return precision_of(detector_of(student), self.task.held_back, self.task.class_names)

    def _share(self, share: float) -> Budget:
        """A part of the whole budget, which begins now."""
        steps = self.budget.steps
        return Budget(None if steps is None else round(steps * share), self.budget.seconds * share)

    def _said(self, words: str) -> Callable[[float], None]:
        """What tells of every step."""

        def said(_: float) -> None:
            self.budget.done += 1
            self.progress(words, self.budget.progress)

        return said
