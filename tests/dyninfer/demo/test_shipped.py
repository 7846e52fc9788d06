from __future__ import annotations

import sys

import pytest

from dyninfer.demo.shipped import shipped
from dyninfer.errors import MissingExtra
from dyninfer.installing import pip_install
from tests import support


def test_a_file_is_read_and_its_package_is_not_imported() -> None:
    loaded = set(sys.modules)
    assert shipped("numpy", "__init__.py").startswith(b'"""')
    assert shipped("xml", "dom/minidom.py")
    assert "xml.dom.minidom" not in set(sys.modules) - loaded


@pytest.mark.parametrize(
    ("package", "name"), [("mlxtent", "digits.csv"), ("numpy", "data/digits.csv"), ("numpy", "lib")]
)
def test_what_is_not_there_is_named_with_its_extra(package: str, name: str) -> None:
    with support.refuses(MissingExtra, f"{package}/{name} was not found", pip_install("demo")):
        shipped(package, name)
