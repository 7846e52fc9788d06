"""Tests on a real GPU, and the same ones on the simulated machine, which run everywhere.

Those on a GPU are skipped where there is none. ``make test-gpu`` and ``make test-cuda`` run them
through :mod:`tests.gpu.__main__`, and keep a report, which a pull request may bring.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dyninfer.engines.trt.cuda import Cuda, open_cuda
from dyninfer.errors import BackendUnavailable
from tests.gpu.grounds import Ground, Kind, stand_on
from tests.gpu.report import REPORT, Report

GROUNDS = [
    pytest.param(kind, id=kind.value, marks=[] if kind is Kind.STAND_IN else pytest.mark.gpu)
    for kind in Kind
]


@pytest.fixture(params=GROUNDS)
def ground(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """Every TensorRT that is installed, PyTorch where it has CUDA, and the simulated machine."""
    try:
        found = stand_on(request.param, monkeypatch)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    yield found
    if found.machine is not None:
        assert not found.machine.leaks()
        assert not found.machine.violations


@pytest.fixture
def cuda() -> Cuda:
    try:
        return open_cuda(0)
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(params=["cuda", "tensorrt"])
def provider(request: pytest.FixtureRequest, cuda: Cuda) -> str:
    """ONNX Runtime's providers for GPUs, if its GPU build is installed."""
    del cuda
    from dyninfer.engines.ort.library import ort
    from dyninfer.engines.ort.runtime import PROVIDERS

    if PROVIDERS[request.param] not in ort.get_available_providers():
        pytest.skip(f"this ONNX Runtime has no {PROVIDERS[request.param]}")
    return request.param


_report = Report(Path(os.environ[REPORT])) if REPORT in os.environ else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result
    if _report is not None:
        _report.add(item, report)
