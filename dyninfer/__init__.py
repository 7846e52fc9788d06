"""Inference for dynamic detectors: little work on easy images, more on hard ones.

    import dyninfer

    with dyninfer.load("dy-yolov7.dyn") as detector:
        detections = detector("street.jpg")
        detector.policy = dyninfer.HardFraction(0.3)

Importing this package loads nothing heavy; each name is imported when it is first used. The public
names stand in ``__init__.pyi``, which type checkers read as well.
"""

from typing import Any as _Any

import lazy_loader as _lazy

from dyninfer.forks import Opening as _Opening

_get, _, _names = _lazy.attach_stub(__name__, __file__)
__all__ = [*_names, "__version__"]  # strings, as lazy_loader says


def __getattr__(name: str) -> _Any:
    if name != "__version__":
        with _Opening():
            found = _get(name)
        globals()[name] = found  # later uses take no lock of an import
        return found
    from importlib import metadata  # slow to import, so not before it is asked for

    return metadata.version("dyninfer")


def __dir__() -> list[str]:
    return sorted(__all__)
