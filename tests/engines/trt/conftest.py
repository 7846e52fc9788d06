from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """What the stand-in compiles and measures is kept in no user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder: Path = tmp_path_factory.mktemp("cache")
        patch.setattr("dyninfer.engines.trt.kept.user_cache", lambda name: folder / name)
        yield
