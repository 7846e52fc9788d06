"""Taking down what stages read and make while a route is walked."""

from __future__ import annotations

from collections.abc import Mapping

from dyninfer.bundle.manifest import Stage
from dyninfer.runtime.arrays import RunArrays
from dyninfer.runtime.executor import Arrays


class Recording:
    """Runs stages and keeps their inputs and outputs, of the last run of each."""

    def __init__(self, stages: Mapping[str, Stage], run_stage: RunArrays) -> None:
        self._stages = stages
        self._run_stage = run_stage
        self.reads: dict[str, Arrays] = {}
        self.makes: dict[str, Arrays] = {}

    def run(self, stage: str, tensors: Arrays) -> Arrays:
        """The stage's outputs; ``tensors`` hold its inputs among others."""
        self.reads[stage] = {spec.name: tensors[spec.name] for spec in self._stages[stage].inputs}
        self.makes[stage] = self._run_stage(stage, self.reads[stage])
        return self.makes[stage]
