"""What ``dyninfer bench`` is asked to measure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dyninfer.benchmarks.latency.effort import Effort
from dyninfer.benchmarks.latency.pictures import BenchPictures
from dyninfer.benchmarks.latency.scenarios import Choices
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import Policy
from dyninfer.runtime.engine_choice import EngineChoice

LEAST_ROUNDS = 8
MOST_ROUNDS = 20


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


@dataclass(frozen=True)
class BenchRequest:
    """What to measure.

    Attributes:
        command: as it was typed.
        bundle: its folder.
        pictures: to run.
        engine: how the bundle is opened.
        choices: what to vary.
        effort: how long.
        policy: for the scenarios that route by themselves; None for the detector's own.
        baselines: what to compare with.
    """

    command: str
    bundle: Path
    pictures: BenchPictures
    engine: EngineChoice = field(default_factory=EngineChoice)
    choices: Choices = field(default_factory=Choices)
    effort: Effort = field(default_factory=Effort)
    policy: Policy | Goal | None = None
    baselines: BaselineRequest = field(default_factory=BaselineRequest)
