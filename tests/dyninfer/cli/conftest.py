from __future__ import annotations

import pytest


@pytest.fixture
def needs_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
