"""dyninfer against its baselines, as a part of a benchmark's run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dyninfer.benchmarks.baselines.run import run_baselines
from dyninfer.benchmarks.latency.record import Baselines
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.benchmarks.latency.slices import MS_PER_S
from dyninfer.errors import DyninferError
from dyninfer.runtime.engine_choice import EngineChoice

LEAST_ROUNDS = 8
MOST_ROUNDS = 20
FAILURES = (DyninferError, OSError, MemoryError)
"""What may go wrong after the scenarios and must not cost them."""
OnStep = Callable[[str, int, int], object]
"""(what is about to run, how many steps of this part are done, how many there are)."""


@dataclass(frozen=True)
class BaselineRequest:
    """What dyninfer is compared with.

    Attributes:
        names: of :mod:`dyninfer.benchmarks.baselines.setup`, or ONNX files; may be empty.
        sources: checkpoints for PyTorch.
        rounds: of the comparison, at most; slow calls get fewer.
        memory: also measure the memory of each, in fresh processes.
        reason: why there are none, where there are none.
    """

    names: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    rounds: int = MOST_ROUNDS
    memory: bool = True
    reason: str = "not asked for; see --against"


def rounds_of_comparison(
    asked: BaselineRequest, results: Sequence[ScenarioResult], seconds: float
) -> int:
    """Rounds as were asked for, or as fit into the time, but never too few to say anything.

    dyninfer and each baseline run once on each way in a round, after a call that does not count;
    how long a call takes, the scenarios of single images tell.
    """
    slowest_ms = max((r.latency.mean_ms.value for r in results if r.scenario.is_plain), default=0.0)
    ways = len(results[0].exits) if results else 1
    calls = 2 * ways * (1 + len(asked.names))
    fitting = seconds * MS_PER_S / (calls * slowest_ms) if slowest_ms else asked.rounds
    return min(asked.rounds, max(LEAST_ROUNDS, int(fitting)))


def hold_comparison(
    bundle: Path,
    engine: EngineChoice,
    asked: BaselineRequest,
    results: Sequence[ScenarioResult],
    seconds: float,
    on_step: OnStep,
) -> tuple[Baselines | None, str]:
    """Run the baselines, or say why there are none.

    A failure costs nothing that was measured before: its reason takes the place of the results.
    Ctrl-C is passed on.
    """
    if not asked.names:
        return None, asked.reason
    try:
        found = run_baselines(
            bundle,
            asked.names,
            sources=asked.sources,
            rounds=rounds_of_comparison(asked, results, seconds),
            engine=engine,
            memory=asked.memory,
            progress=lambda what, done, total: on_step(f"baselines: {what}", done, total),
        )
    except FAILURES as error:
        return None, f"the comparison failed: {reason_of(error)}"
    return found, ""


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
