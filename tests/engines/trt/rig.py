"""A detector on the stand-in, beside one on ONNX Runtime that says what is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import dyninfer
from dyninfer.builds.builder import builder_for
from dyninfer.builds.files import Converted, Making, make_build
from dyninfer.builds.spec import VERSION_COMPATIBLE, OpenBuild, own_precision
from dyninfer.bundle.folder import Bundle
from dyninfer.engines.trt.backend import Platform, TrtBackend
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.pycuda_driver import PyCuda
from dyninfer.engines.trt.workspace import TrtWorkspace
from dyninfer.runtime.session import Session
from tests.engines.trt.standin.driver import FakeDriver
from tests.engines.trt.standin.library import FakeLibrary, engine_file
from tests.engines.trt.standin.machine import Machine
from tests.engines.trt.standin.runtime import FakeContexts, FakeRuntime

DEVICE = 1  # not the one that every thread starts with


@dataclass
class Rig:
    machine: Machine
    fake: FakeLibrary
    cuda: Any
    backend: TrtBackend
    driver: FakeDriver | FakeRuntime
    workspaces: list[TrtWorkspace] = field(default_factory=list)  # of all callers so far

    def __post_init__(self) -> None:
        make = self.backend.workspace

        def watched() -> TrtWorkspace:
            self.workspaces.append(make())
            return self.workspaces[-1]

        self.backend.workspace = watched

    def build(
        self,
        bundle: Bundle,
        also: dict[str, str] | None = None,
        converted: Converted | None = None,
        **options: Any,
    ) -> OpenBuild:
        """Engines for stages one by one: ``options`` by stage, or all; ``also`` of the build."""
        builder = builder_for(self.backend)
        wanted = builder.wanted(bundle.manifest, own_precision(bundle.manifest), 8)
        assert wanted is not None
        wanted = wanted.model_copy(update={"options": {**wanted.options, **(also or {})}})

        def make_engine(name: str, onnx: Path) -> bytes:
            made = {
                "shared_profiles": "shared_profiles" in wanted.options,
                "host_code": VERSION_COMPATIBLE in wanted.options,
            }
            return engine_file(onnx, **(made | options.get(name, options.get("all", {}))))

        return make_build(bundle, wanted, Making(converted, replace=True), make_engine)

    @contextmanager
    def detector(
        self,
        path: Path,
        *,
        max_batch: int = 8,
        speculative_head: bool = False,
        degrade: bool = False,
        also: dict[str, str] | None = None,
        converted: Converted | None = None,
        **options: Any,
    ) -> Iterator[dyninfer.Detector]:
        bundle = Bundle.open(path)
        build = self.build(bundle, also, converted, **options)
        session = Session(
            bundle,
            self.backend,
            build,
            speculative_head=speculative_head,
            degrade=degrade,
            max_batch=max_batch,
        )
        with dyninfer.Detector(bundle, session, max_batch) as opened:
            yield opened
        assert not self.machine.leaks(), self.machine.leaks()
        assert not self.machine.violations, self.machine.violations


def make_rig(
    version: str = "10.13", package: str = "cuda-python", *, late: bool = True, **options: Any
) -> Rig:
    machine = Machine(late=late, **options)
    fake = FakeLibrary(machine, version, DEVICE)
    driver: FakeDriver | FakeRuntime
    cuda: Any
    if package == "pycuda":
        driver = FakeDriver(machine)
        cuda = PyCuda(DEVICE, driver)
    else:
        driver = FakeRuntime(machine)
        cuda = Cuda(DEVICE, driver, FakeContexts(machine))
    library = fake.library
    backend = TrtBackend(library.flavour, platform=Platform(library, cuda))
    return Rig(machine, fake, cuda, backend, driver)


def assert_same(a: Sequence[dyninfer.RawOutput], b: Sequence[dyninfer.RawOutput]) -> None:
    assert len(a) == len(b)
    for found, expected in zip(a, b, strict=True):
        assert found.exit_index == expected.exit_index
        if expected.easiness is None:
            assert found.easiness is None
        else:
            np.testing.assert_allclose(found.easiness, expected.easiness, rtol=0, atol=1e-6)
        assert set(found.outputs) == set(expected.outputs)
        for name, array in expected.outputs.items():
            np.testing.assert_allclose(found.outputs[name], array, rtol=1e-5, atol=1e-4)
