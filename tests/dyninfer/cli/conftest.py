from __future__ import annotations

import pytest

# Consoles take the width of the environment at their making: made here, no test's setting stays
import dyninfer.cli.common  # noqa: F401


@pytest.fixture
def needs_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
