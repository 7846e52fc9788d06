from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dyninfer import installing
from dyninfer.installing import command_words, pip_install
from tests import support


def test_from_a_checkout_its_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: str(Path(sys.executable).with_name("pip")))
    assert pip_install("cpu", "export") == f'pip install -e "{support.ROOT}[cpu,export]"'


def test_where_pip_is_another_pythons_it_is_called_by_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for elsewhere in (None, "/usr/bin/pip"):
        monkeypatch.setattr(shutil, "which", lambda _, found=elsewhere: found)
        assert pip_install("eval").startswith(f"{sys.executable} -m pip install -e ")


@pytest.mark.parametrize(
    ("noted", "named"),
    [
        (None, '"dyninfer[eval]"'),
        (
            {"url": "file:///home/me/dyninfer-0.1.0-py3-none-any.whl", "archive_info": {}},
            '"dyninfer[eval] @ file:///home/me/dyninfer-0.1.0-py3-none-any.whl"',
        ),
        (
            {"url": "file:///src/dyninfer", "dir_info": {}},
            '"dyninfer[eval] @ file:///src/dyninfer"',
        ),
        (
            {"url": "https://host/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc1"}},
            '"dyninfer[eval] @ git+https://host/r.git@abc1"',
        ),
    ],
)
def test_from_site_packages_what_pip_has_noted_is_named(tmp_path, noted, named) -> None:
    copies = tmp_path / "dyninfer"
    copies.mkdir()
    (copies / "__init__.py").touch()
    shutil.copy(installing.__file__, copies)
    facts = tmp_path / "dyninfer-0.1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Name: dyninfer\nVersion: 0.1.0\n")
    if noted:
        (facts / "direct_url.json").write_text(json.dumps(noted))
    program = "from dyninfer.installing import pip_install; print(pip_install('eval'))"
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.strip() == f"{sys.executable} -m pip install {named}"


def test_no_message_names_a_package_that_no_index_needs_to_have() -> None:
    for top in ("dyninfer", "engines", "exporters", "benchmarks"):
        for path in (support.ROOT / top).rglob("*.py"):
            if path.name != "installing.py":
                assert 'pip install "dyninfer' not in path.read_text(), path


@pytest.mark.parametrize(
    ("started", "found", "words"),
    [
        (".venv/bin/dyninfer", None, [".venv/bin/dyninfer"]),
        (".venv/bin/dyninfer", "/usr/bin/dyninfer", [".venv/bin/dyninfer"]),
        ("/env/bin/dyninfer", "/env/bin/dyninfer", ["dyninfer"]),
        ("/clone/dyninfer/__main__.py", None, [sys.executable, "-m", "dyninfer"]),
    ],
)
def test_what_is_to_be_typed_next_can_be_typed(monkeypatch, started, found, words) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setattr(shutil, "which", lambda _: found)
    assert command_words() == words
