"""A clone called ``dyninfer``, installed with ``pip install -e``, beside its user's own files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import support

pytestmark = pytest.mark.slow

USE = """\
import dyninfer

with dyninfer.load("two.dyn") as detector:
    found = detector("street.jpg")
    reveal_type(found)
    reveal_type(detector.class_names)
detector.no_such_thing
"""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the clone ``dyninfer`` and the environment ``env`` it is installed in.

    The environment is new, but for the packages of this one, which it is pointed to.
    """
    if find_spec("hatchling") is None:
        pytest.skip("the package 'hatchling' is not installed")
    folder = tmp_path_factory.mktemp("parent")
    support.copy_checkout(folder / "dyninfer")
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env").glob("lib/python3*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "env/bin/python"), "install"]
    install = [*pip, "--no-deps", "--no-build-isolation", "--editable", "dyninfer"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run(parent: Path, *command: str) -> str:
    """What a command that ends well says, run by the environment's Python in ``parent``."""
    done = subprocess.run(
        [str(parent / "env/bin/python"), *command],
        cwd=parent,
        env={"PATH": os.environ["PATH"], "HOME": str(parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_script_beside_the_clone_imports_the_package(parent) -> None:
    support.write_two_exits(parent / "two.dyn")
    (parent / "app.py").write_text(
        "import dyninfer, numpy as np\n"
        "images = np.zeros((2, 3, 8, 8), np.float32)\n"
        "images[0] = 0.9\n"
        "with dyninfer.load('two.dyn') as detector:\n"
        "    print(dyninfer.__file__)\n"
        "    print([out.exit_index for out in detector.infer({'images': images})])\n"
    )
    where, exits = run(parent, "app.py").splitlines()
    assert Path(where).resolve() == (parent / "dyninfer/dyninfer/__init__.py").resolve()
    assert exits == "[0, 1]"


def test_the_command_runs_beside_the_clone(parent) -> None:
    assert run(parent, "-m", "dyninfer", "--version").startswith("dyninfer 0")
    assert run(parent, "env/bin/dyninfer", "--version").startswith("dyninfer 0")


@pytest.mark.parametrize("name", ["benchmarks", "engines", "exporters", "tests", "training"])
def test_a_users_folder_of_one_of_the_clones_names_is_still_theirs(parent, name) -> None:
    (parent / name).mkdir()
    (parent / name / "mine.py").write_text("print('mine')\n")
    assert run(parent, "-c", f"import dyninfer, {name}.mine") == "mine\n"


def type_checked(parent: Path, checker: str, *options: str) -> str:
    """What a type checker says of a user's script; the script has one mistake."""
    (parent / "typed.py").write_text(USE)
    done = subprocess.run(
        [sys.executable, "-m", checker, *options, "typed.py"],
        cwd=parent,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy_sees_the_types(parent) -> None:
    cache = ("--cache-dir", os.devnull)  # nobody would read it
    python = ("--python-executable", str(parent / "env/bin/python"))
    said = type_checked(parent, "mypy", "--strict", *cache, *python)
    assert 'Revealed type is "dyninfer.results.answers.Detections' in said
    assert '"Detector" has no attribute "no_such_thing"' in said
    assert "Found 1 error in 1 file" in said


@pytest.mark.skipif(find_spec("pyright") is None, reason="the package 'pyright' is not installed")
@pytest.mark.skipif(shutil.which("node") is None, reason="pyright needs node on the path")
def test_pyright_sees_the_types(parent) -> None:
    said = type_checked(parent, "pyright", "--pythonpath", str(parent / "env/bin/python"))
    assert 'Type of "found" is "Detections"' in said
    assert 'Cannot access attribute "no_such_thing" for class "Detector' in said
    assert "1 error, 0 warnings" in said
