"""Contenders that run the bundle's own engines: dyninfer itself, and its last way alone."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

import dyninfer
from dyninfer.benchmarks.baselines.setup import (
    Action,
    Arrays,
    CallKind,
    Contender,
    Setup,
    read_inputs,
)
from dyninfer.benchmarks.latency.scenarios import ForcedWay
from dyninfer.builds.builder import choose_build, stage_file
from dyninfer.bundle.folder import Bundle
from dyninfer.engines import open_backend
from dyninfer.engines.base import check_tensor
from dyninfer.errors import InputError
from dyninfer.routing.policy import AlwaysHard
from dyninfer.runtime.executor import execute
from dyninfer.runtime.plan import alone, stages_of
from dyninfer.runtime.session import EngineRunner


class DyninferContender(Contender):
    """Separate engines behind the public API, or (``engines``) the session below it."""

    def __init__(self, setup: Setup) -> None:
        self._detector = dyninfer.load(
            setup.model, **asdict(setup.engine), build=False, max_batch=1
        )
        self._session = self._detector.session  # below the public API, to time that on its own
        self._inputs = read_inputs(setup)

    def action(self, way: int, call: CallKind) -> Action:
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        policy = ForcedWay(way)

        def run_api() -> None:
            self._detector.infer(self._inputs, policy=policy)

        def run_engines() -> None:
            with self._session.workspace() as workspace:
                self._session.run(lambda name, *_: self._inputs[name], 1, policy, workspace)

        return run_api if call is CallKind.API else run_engines

    def outputs(self, way: int) -> Arrays:
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        (found,) = self._detector.infer(self._inputs, policy=ForcedWay(way))
        return {name: array[None] for name, array in found.outputs.items()}


class LastExitContender(Contender):
    """The stages that the hardest way needs, and no others, on the engines dyninfer opens.

    What a stage computes for others alone, such as a router's averages at the end of a body, it
    computes here too.
    """

    def __init__(self, setup: Setup) -> None:
        bundle, engine = Bundle.open(setup.model), setup.engine
        manifest = bundle.manifest
        self._name = manifest.name
        self._plan = alone(manifest, manifest.ways_by_cost[-1])
        self._backend = open_backend(engine.backend, engine.device, engine.provider, engine.threads)
        build = choose_build(bundle, self._backend, engine.precision, 1, may_build=False)
        final = manifest.ways[manifest.ways_by_cost[-1]].final
        self._engines = {
            name: self._backend.open(
                name,
                manifest.stages[name],
                stage_file(bundle, name, build),
                frozenset(manifest.task.outputs if name == final else ()),
            )
            for name in stages_of(self._plan)
        }
        self._reads = {
            spec.name: spec
            for name in self._engines
            for spec in manifest.stages[name].inputs
            if spec.name in manifest.image_inputs
        }
        inputs = read_inputs(setup)
        self._inputs = {name: inputs[name] for name in self._reads}
        self._workspace = self._backend.workspace()

    def action(self, way: int, call: CallKind) -> Action:  # noqa: ARG002  # it has one way
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        return self._run_api if call is CallKind.API else self._run_engines

    def outputs(self, way: int) -> Arrays:  # noqa: ARG002  # it has one way
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        return self._run_api()

    def _run_api(self) -> Arrays:
        """With the checks and copies that ``Detector.infer`` makes."""
        for name, array in self._inputs.items():
            check_tensor(array.shape, array.dtype, self._reads[name], 1, self._name)
            if not np.isfinite(array).all():
                raise InputError(f"{name} holds NaN or infinity; check the preprocessing")
        return {name: array.copy() for name, array in self._run_engines().items()}

    def _run_engines(self) -> Arrays:
        runner = EngineRunner(
            self._engines, self._backend, lambda name, *_: self._inputs[name], self._workspace
        )
        (group,) = execute(self._plan, runner, 1, AlwaysHard()).groups
        return dict(group.outputs)
