"""The code's description of PyCUDA against the real one.

    DYNINFER_BUILD_PYCUDA=1 python -m pytest tests/engines/trt/test_pycuda.py

Building takes a processor about a minute, and so is left out of the suite, which compares with a
list from the source instead (``test_cuda.py``).
"""

from __future__ import annotations

import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from dyninfer.engines.trt import cuda_api
from tests.engines.trt.real_pycuda import BUILD, build, python_with
from tests.engines.trt.test_cuda import DRIVER, PYCUDA_PARAMETERS, PYCUDA_SOURCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BUILD not in os.environ, reason=f"set {BUILD} to build PyCUDA"),
]
CLASSES = {
    "PyCudaStream": "Stream",
    "PyCudaEvent": "Event",
    "DeviceAllocation": "DeviceAllocation",
    "PagelockedHostAllocation": "PagelockedHostAllocation",
    "PyCudaContext": "Context",
    "PyCudaDevice": "Device",
    "DeviceClass": "Device",
    "DeviceAttribute": "device_attribute",
    "EventFlags": "event_flags",
}
LOOK = f"""
import json, pycuda.driver as driver
from dyninfer.engines.trt.pycuda_driver import PyCuda, import_driver
from dyninfer.errors import BackendUnavailable
assert import_driver() is driver
try:
    PyCuda(0, driver)
except BackendUnavailable as error:
    said = str(error)
names = {{"PyCudaDriver": dir(driver)}}
names |= {{mine: dir(getattr(driver, theirs)) for mine, theirs in {CLASSES}.items()}}
names["DeviceClass"] += ["__call__"] if callable(driver.Device) else []  # of its own class
functions = {sorted(PYCUDA_PARAMETERS)}
print(json.dumps([said, names, {{name: getattr(driver, name).__doc__ for name in functions}}]))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    modules: Path = build(tmp_path_factory.mktemp("pycuda"))
    return json.loads(python_with(modules, LOOK))


def test_it_imports_and_says_in_one_line_that_there_is_no_gpu(found: Any) -> None:
    said, _, _ = found
    assert "no GPU can be used (cuInit failed: no device, says a stub)" in said
    assert "\n" not in said


def test_it_has_what_is_used_and_what_its_source_was_read_to_have(found: Any) -> None:
    _, names, _ = found
    for member in DRIVER:
        assert member.name in names[member.owner], member.key
    for owner, read in PYCUDA_SOURCE.items():
        assert read <= set(names[owner]), owner


def test_its_functions_take_the_parameters_that_are_given(found: Any) -> None:
    for name, text in found[2].items():
        parameters = re.findall(r"\(object\)(\w+)|\(int\)(\w+)", text.split("->")[0])
        theirs = [first or second for first, second in parameters]
        described = inspect.signature(getattr(cuda_api.PyCudaDriver, name)).parameters
        mine = [parameter for parameter in described if parameter != "self"]
        assert theirs[: len(mine)] == mine, name
