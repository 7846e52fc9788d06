"""Files that other packages bring along, read without importing those.

To import scikit-learn for a picture takes seconds, and matplotlib complains of a home that cannot
be written to.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dyninfer.errors import MissingExtra
from dyninfer.installing import pip_install


def shipped(package: str, name: str) -> bytes:
    """A file of an installed package; ``name`` is its path within that.

    Raises:
        MissingExtra: the package is not installed, or has no such file.
    """
    spec = find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / name).is_file():
            return path.read_bytes()
    raise MissingExtra(f"{package}/{name} was not found; install it: {pip_install('demo')}")
