"""Tests on a real GPU: skipped where there is none, except under ``make test-gpu``.

There the run ends with the reason and status 1, and what ran is written as a report, which a pull
request may bring.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dyninfer.benchmarks.machine.describe import describe_machine
from dyninfer.engines.trt.cuda import Cuda, open_cuda
from dyninfer.engines.trt.library import Flavour, load_library
from dyninfer.errors import BackendUnavailable

REPORT = "DYNINFER_GPU_REPORT"
"""Where ``make test-gpu`` wants the report; set, the tests must run."""
_outcomes: dict[str, dict[str, Any]] = {}


def _unavailable(reason: str) -> None:
    if os.environ.get(REPORT):
        pytest.exit(f"nothing can be tested on a GPU here: {reason}", returncode=1)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def cuda() -> Cuda:
    try:
        return open_cuda(0)
    except BackendUnavailable as error:
        _unavailable(str(error))
        raise


@pytest.fixture(params=list(Flavour), ids=lambda flavour: flavour.value)
def flavour(request: pytest.FixtureRequest, cuda: Cuda) -> Flavour:
    """Every TensorRT that is installed; one is enough for the others to be left out."""
    del cuda  # without a GPU nothing else matters
    missing = {}
    for known in Flavour:
        try:
            load_library(known)
        except BackendUnavailable as error:
            missing[known] = str(error)
    if request.param in missing:
        if len(missing) == len(Flavour):
            _unavailable(missing[request.param])
        pytest.skip(missing[request.param])
    return request.param


@pytest.fixture(params=["cuda", "tensorrt"])
def provider(request: pytest.FixtureRequest, cuda: Cuda) -> str:
    """ONNX Runtime's providers for GPUs, if its GPU build is installed."""
    del cuda
    from dyninfer.engines.ort.library import ort
    from dyninfer.engines.ort.runtime import PROVIDERS

    if PROVIDERS[request.param] not in ort.get_available_providers():
        pytest.skip(f"this ONNX Runtime has no {PROVIDERS[request.param]}")
    return request.param


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result
    if report.when == "call" or report.outcome != "passed":
        reason = str(report.longrepr[2]) if report.skipped else ""
        if report.failed:
            reason = str(report.longrepr).splitlines()[-1]
        _outcomes[item.name] = {
            "outcome": report.outcome,
            "seconds": round(report.duration, 3),
            "reason": reason,
            **dict(item.user_properties),
        }


def pytest_sessionfinish() -> None:
    target = os.environ.get(REPORT)
    if target and _outcomes:
        Path(target).write_text(json.dumps(_report(), indent=2) + "\n", encoding="utf-8")


def _report() -> dict[str, Any]:
    machine: dict[str, Any] = {"system": platform.platform(), "python": platform.python_version()}
    try:
        opened = open_cuda(0)
        found, here = opened.properties, describe_machine()
        machine |= {
            "gpu": found.name,
            "compute_capability": "{}.{}".format(*found.compute_capability),
            "multiprocessors": found.multiprocessors,
            "memory_gib": found.memory_gib,
            "driver": here.nvidia_driver,
            "driver_cuda": here.cuda_driver,
            "cuda_package": opened.package,
        }
    except BackendUnavailable as error:
        machine["gpu"] = str(error)
    for known in Flavour:
        try:
            machine[known.value] = load_library(known).version
        except BackendUnavailable as error:
            machine[known.value] = str(error)
    counts = [entry["outcome"] for entry in _outcomes.values()]
    return {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "passed": counts.count("passed"),
        "failed": counts.count("failed"),
        "skipped": counts.count("skipped"),
        "tests": _outcomes,
    }
