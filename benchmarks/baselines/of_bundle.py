"""Contenders that run the bundle's own engines: dyninfer itself, and its last exit alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import dyninfer
from dyninfer.benchmarks.baselines.setup import Action, Arrays, CallKind, Setup, Side, read_inputs
from dyninfer.builds.choice import choose_build
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.engines import open_backend
from dyninfer.evaluation.exit_times import stages_of_last_exit
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.batches import check_inputs


def _policy(side: Side) -> Policy:
    return AlwaysEasy() if side is Side.EASY else AlwaysHard()


class DyninferContender:
    """Separate engines behind the public API, or (``engines``) the pipeline below it."""

    note = ""

    def __init__(self, setup: Setup) -> None:
        self._detector = dyninfer.load(
            setup.model, **asdict(setup.engine), build=False, max_batch=1
        )
        self._session = self._detector.session  # below the public API, to time that on its own
        self._inputs = read_inputs(setup)

    def action(self, side: Side, call: CallKind) -> Action:
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        policy = _policy(side)

        def run_api() -> None:
            self._detector.infer(self._inputs, policy=policy)

        def run_engines() -> None:
            with self._session.workspace() as workspace:
                self._session.run(lambda name, *_: self._inputs[name], 1, policy, workspace)

        return run_api if call is CallKind.API else run_engines

    def outputs(self, side: Side) -> Arrays:
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        (found,) = self._detector.infer(self._inputs, policy=_policy(side))
        return {name: array[None] for name, array in found.outputs.items()}


class LastExitContender:
    """The stages that the last exit needs, one after the other, on the engines dyninfer opens.

    What a stage computes for others alone, such as a router's averages at the end of a body, it
    computes here too.
    """

    note = ""

    def __init__(self, setup: Setup) -> None:
        bundle, engine = Bundle.open(setup.model), setup.engine
        self._manifest = last_exit_manifest(bundle.manifest)
        self._backend = open_backend(engine.backend, engine.device, engine.provider)
        build = choose_build(bundle, self._backend, engine.precision, 1, may_build=False)
        self._final = (bundle.manifest.ways[-1].head or bundle.manifest.ways[-1].body,)
        outputs = self._manifest.task.outputs
        self._engines = [
            self._backend.open(
                name,
                stage,
                self._backend.stage_file(name, bundle.stage_path(name), build),
                frozenset(outputs if name in self._final else ()),
            )
            for name, stage in self._manifest.stages.items()
        ]
        inputs = read_inputs(setup)
        self._inputs = {name: inputs[name] for name in self._manifest.image_inputs}
        self._workspace = self._backend.workspace()

    def action(self, side: Side, call: CallKind) -> Action:  # noqa: ARG002  # it has one exit
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        return self._run_api if call is CallKind.API else lambda: self._run_engines(self._inputs)

    def outputs(self, side: Side) -> Arrays:  # noqa: ARG002  # it has one exit
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        return self._run_api()

    def _run_api(self) -> Arrays:
        """With the checks and copies that ``Detector.infer`` makes."""
        checked = check_inputs(self._manifest, self._inputs)
        found = self._run_engines({name: np.asarray(array) for name, array in checked.items()})
        return {name: array.copy() for name, array in found.items()}

    def _run_engines(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        tensors: dict[str, Any] = {
            name: self._backend.from_host(array) for name, array in inputs.items()
        }
        for engine in self._engines:
            tensors |= engine.run(tensors, self._workspace)
        reads = {name: tensors[name].to_host() for name in self._manifest.task.outputs}
        return {name: read.numpy() for name, read in reads.items()}


def last_exit_manifest(manifest: Manifest) -> Manifest:
    """The manifest with nothing but the stages and image inputs that the last exit needs.

    It is for looking things up: its route still names the others.
    """
    needed = stages_of_last_exit(manifest)
    order = [name for exit_ in manifest.ways for name in exit_.stages if name in needed]
    stages = {name: manifest.stages[name] for name in order}
    read = {spec.name for stage in stages.values() for spec in stage.inputs}
    images = {name: spec for name, spec in manifest.image_inputs.items() if name in read}
    return manifest.model_copy(update={"stages": stages, "image_inputs": images})


def stage_files(path: Path, precision: str | None) -> dict[str, Path]:
    """Stage -> the ONNX file that ONNX Runtime runs it from: the bundle's, or a conversion's.

    Raises:
        EngineBuildError: no build holds this precision.
    """
    bundle = Bundle.open(path)
    backend = open_backend("onnxruntime")
    try:
        build = choose_build(bundle, backend, precision, 1, may_build=False)
        return {
            name: backend.stage_file(name, bundle.stage_path(name), build)
            for name in bundle.manifest.stages
        }
    finally:
        backend.close()
