"""The picture of the layers in CONTRIBUTING.md is true."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import support

COMMAND = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, "--no-cache", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_dependencies_point_one_way() -> None:
    done = lint(support.ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("engines", "builds"),
        ("engines", "runtime"),
        ("bundle", "engines"),
        ("exporters", "benchmarks"),
        ("exporters", "cli"),
        ("benchmarks", "cli"),
        ("monitoring", "runtime"),
    ],
)
def test_an_import_against_them_is_found(low: str, high: str, tmp_path: Path) -> None:
    """A package with the same rooms, in which one room reaches up."""
    text = (support.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    settings = text[text.index("[tool.importlinter]") :]
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    package = tmp_path / "dyninfer"
    for room in (p for p in (support.ROOT / "dyninfer").iterdir() if (p / "__init__.py").exists()):
        (package / room.name).mkdir(parents=True)
        (package / room.name / "__init__.py").touch()
    for module in (support.ROOT / "dyninfer").glob("*.py"):
        (package / module.name).touch()
    (package / "__main__.py").write_text("import dyninfer.cli\n", encoding="utf-8")
    assert lint(tmp_path).returncode == 0
    (package / low / "__init__.py").write_text(f"import dyninfer.{high}\n", encoding="utf-8")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert f"dyninfer.{low} is not allowed to import dyninfer.{high}" in done.stdout
