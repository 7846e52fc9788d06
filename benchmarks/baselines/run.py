"""dyninfer and its baselines in one run, in turns, as a part of a benchmark's record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dyninfer.benchmarks.baselines.child import ChildError
from dyninfer.benchmarks.baselines.contest import (
    SETTLE_MS,
    Contest,
    ContestTimes,
    Entry,
    measure_memory,
)
from dyninfer.benchmarks.baselines.contestants import (
    TOLERANCE,
    Contestants,
    labels_of,
    largest_difference,
    ratios_of,
    times_of,
)
from dyninfer.benchmarks.baselines.setup import DYNINFER, Arrays, Kind, Setup, check_names
from dyninfer.benchmarks.latency.record import Baselines, ContenderMemory
from dyninfer.builds.spec import plan_precision
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.errors import DyninferError, InputError
from dyninfer.evaluation.interleaved import MIN_PAIRS
from dyninfer.runtime.engine_choice import EngineChoice

ROUNDS = 20
Progress = Callable[[str, int, int], object]
"""Called with what is being done, how much of it is done, and how much it is in all."""


def run_baselines(
    bundle: Path,
    names: Sequence[str],
    *,
    sources: Sequence[Path] = (),
    rounds: int = ROUNDS,
    engine: EngineChoice = EngineChoice(),  # noqa: B008  # it is frozen
    settle_ms: float = SETTLE_MS,
    memory: bool = True,
    progress: Progress = lambda *_: None,
) -> Baselines:
    """Time dyninfer and the named baselines in turns, one image at a time.

    Every contender is a process of its own; all are open at once, so memory must do for all.
    Every way of the bundle is timed for itself, whatever its router or chooser says. Baselines that
    cannot be opened, fail, or do not find what dyninfer finds are reported in ``unavailable``, and
    the rest goes on. Only the CPU has been run.

    Args:
        bundle: its folder.
        names: see :func:`dyninfer.benchmarks.baselines.setup.check_names`.
        sources: files and folders in which the bundle's PyTorch sources are looked for; then the
            working folder and the bundle's.
        rounds: runs of every contender for each way, at least 2.
        engine: its backend is that of dyninfer and ``always-last-exit``, all others run ONNX
            Runtime or PyTorch; its precision that of dyninfer and of the baselines that are made
            from its ONNX files.
        settle_ms: wait before every run.
        memory: measure each contender's peak memory, too, in fresh processes.
        progress: told how far it is.

    Raises:
        InputError: a name is unknown, or there are too few rounds.
        DyninferError: dyninfer itself cannot be run.
    """
    wanted = check_names(names)
    if rounds < MIN_PAIRS:
        raise InputError(f"{rounds} rounds were asked for, expected at least {MIN_PAIRS}")
    with scratch_folder() as folder:
        manifest = Bundle.open(bundle).manifest
        plan = Contestants(bundle.resolve(), manifest, engine, folder, tuple(sources))
        return _Run(plan, rounds, settle_ms, progress).run(wanted, memory=memory)


@dataclass
class _Run:
    """One run of :func:`run_baselines`; ``chosen`` are the setups that take part."""

    plan: Contestants
    rounds: int
    settle_ms: float
    progress: Progress
    chosen: dict[str, Setup] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def way_names(self) -> tuple[str, ...]:
        """What the bundle's ways are called."""
        return self.plan.manifest.way_names

    def run(self, wanted: Sequence[str], *, memory: bool) -> Baselines:
        """Find who takes part, check that all find the same, and time them."""
        self.plan.write_inputs()
        self.chosen[DYNINFER] = self.plan.setup(Kind.DYNINFER)
        labels = labels_of(wanted)
        for number, name in enumerate(wanted):
            self.progress("preparing", number, len(wanted))
            try:
                self.chosen[labels[name]] = self.plan.setup_of(name)
            except DyninferError as error:
                self.unavailable[labels[name]] = str(error)
        samples = self._time_all()
        measured = self._measure_memory() if memory else ()
        return Baselines(
            rounds=self.rounds,
            times=tuple(times_of(found, self.way_names) for found in samples),
            ratios=ratios_of(samples, self.way_names),
            memory=measured,
            unavailable=self.unavailable,
            differences=self.differences,
            notes=self.notes,
        )

    def _time_all(self) -> list[ContestTimes]:
        with Contest() as contest:
            for number, (name, setup) in enumerate(self.chosen.items()):
                self.progress(f"opening {name}", number, len(self.chosen))
                contest.open(name, setup)
            self._check(contest)
            samples = [
                found for way in range(len(self.way_names)) for found in self._time(contest, way)
            ]
            self.unavailable |= contest.unavailable
            self.notes |= {name: w.note for name, w in contest.workers.items() if w.note}
            self.chosen = {name: self.chosen[name] for name in contest.workers}
        return [found for found in samples if found.entry.contender in self.chosen]

    def _time(self, contest: Contest, way: int) -> list[ContestTimes]:
        entries = [
            Entry(name, call) for name in contest.workers for call in self.chosen[name].kind.calls
        ]
        done = iter(range(1, self.rounds + 1))
        what = f"timing {self.way_names[way]} in turns"
        return contest.time_in_turns(
            entries,
            way,
            self.rounds,
            self.settle_ms,
            lambda: self.progress(what, next(done), self.rounds),
        )

    def _check(self, contest: Contest) -> None:
        """Drop contenders that do not find what dyninfer finds."""
        hardest = self.plan.manifest.ways_by_cost[-1]
        for way in range(len(self.way_names)):
            reference = self._outputs(contest, DYNINFER, way)
            for name in [*contest.workers]:
                alone = self.chosen[name].kind is Kind.LAST_EXIT
                if name != DYNINFER and (way == hardest or not alone):
                    contest.attempt(name, partial(self._check_one, contest, name, way, reference))

    def _outputs(self, contest: Contest, name: str, way: int) -> Arrays:
        return contest.workers[name].outputs(way, self.plan.folder / "outputs.npz")

    def _check_one(self, contest: Contest, name: str, way: int, reference: Arrays) -> None:
        found = largest_difference(reference, self._outputs(contest, name, way))
        if found is not None:
            self.differences[name] = max(found, self.differences.get(name, 0.0))
        if self.chosen[name].kind is Kind.FOREIGN or not self._expects_float32():
            return
        if found is None:
            raise ChildError(f"at {self.way_names[way]} its outputs have other names or shapes")
        if found > TOLERANCE:
            raise ChildError(
                f"at {self.way_names[way]} it differs from dyninfer by {found:.2g} of the largest "
                f"value, expected at most {TOLERANCE:g}: it computes something else"
            )

    def _expects_float32(self) -> bool:
        """Whether everything is computed in float32, so that all must find the same."""
        engine, manifest = self.plan.engine, self.plan.manifest
        if engine.backend not in (None, "onnxruntime") or engine.device not in (None, "cpu"):
            return False  # TensorFloat32
        precisions = plan_precision(engine.precision, manifest)
        return set(precisions.values()) == {Precision.FP32}

    def _measure_memory(self) -> tuple[ContenderMemory, ...]:
        measured = []
        for number, (name, setup) in enumerate(self.chosen.items()):
            self.progress("measuring memory in fresh processes", number, len(self.chosen))
            measured.append(measure_memory(name, setup, len(self.way_names)))
        return tuple(measured)
