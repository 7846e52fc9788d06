from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import support

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, the wheel made from it, and the wheel made from the checkout."""
    for package in ("build", "hatchling"):
        if find_spec(package) is None:
            pytest.skip(f"the package {package!r} is not installed")
    folder = tmp_path_factory.mktemp("dist")
    checkout = folder / "checkout"
    support.copy_checkout(checkout)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    for arguments in ([str(folder / "from_sdist")], [str(folder / "direct"), "--wheel"]):
        subprocess.run([*build, *arguments], cwd=checkout, check=True, capture_output=True)
    return folder


def test_a_copy_of_the_checkout_lacks_what_was_made_in_it(tmp_path, monkeypatch) -> None:
    """Environments take gigabytes, which would be copied for every test of a checkout."""
    checkout, copy = tmp_path / "checkout", tmp_path / "copy"
    made = (".git", ".venv", ".venv-lowest", "predictions-2", "demo-output", "some.dyn")
    for name in (*made, "tests/__pycache__", "tests/builds"):
        (checkout / name).mkdir(parents=True)
        (checkout / name / "module.py").touch()
    shutil.copy(support.ROOT / ".gitignore", checkout)
    monkeypatch.setattr(support, "ROOT", checkout)
    support.copy_checkout(copy)
    files = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert files == {".gitignore", "tests/builds/module.py"}


def wheel_files(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_only_one_import_name_reaches_site_packages(built) -> None:
    for folder in ("from_sdist", "direct"):
        tops = {name.split("/")[0] for name in wheel_files(built / folder)}
        assert {top for top in tops if not top.endswith(".dist-info")} == {"dyninfer"}


def test_every_module_and_data_file_is_in_the_wheel(built) -> None:
    expected = {"dyninfer/py.typed"}
    unwanted = {"__pycache__", "lab", "protocols", "results"}  # of the benchmarks
    for top in ("dyninfer", "engines", "exporters", "benchmarks"):
        for path in (support.ROOT / top).rglob("*"):
            relative = path.relative_to(support.ROOT)
            at_home = top == "benchmarks" and unwanted & set(relative.parts)
            if path.is_file() and "__pycache__" not in relative.parts and not at_home:
                expected.add(str(relative if top == "dyninfer" else Path("dyninfer") / relative))
    expected.remove("dyninfer/benchmarks/README.md")
    assert {
        "dyninfer/demo/assets/photos/coffee.jpg",
        "dyninfer/engines/ort/gather_rows_float32.onnx",
        "dyninfer/exporters/dynamicdet/tables/dy-yolov7-w6.csv",
    } < expected
    for folder in ("from_sdist", "direct"):
        found = {name for name in wheel_files(built / folder) if ".dist-info/" not in name}
        assert found == expected


def test_tests_training_and_the_laboratory_stay_at_home(built) -> None:
    for folder in ("from_sdist", "direct"):
        for name in wheel_files(built / folder):
            assert not {"tests", "training", "lab", "src", "__pycache__"} & set(name.split("/"))


def test_the_licence_travels_with_the_source_and_the_wheel(built) -> None:
    names = {Path(name).name for name in wheel_files(built / "from_sdist")}
    assert {"LICENSE", "NOTICE"} <= names
    (sdist,) = (built / "from_sdist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert {"LICENSE", "NOTICE", "pyproject.toml"} <= {Path(n).name for n in archive.getnames()}


def test_the_wheel_imports_and_runs_from_another_folder(built, tmp_path) -> None:
    (wheel,) = (built / "from_sdist").glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    program = (
        "import sys, dyninfer, numpy as np\n"
        "assert dyninfer.__file__.startswith(sys.argv[1]), dyninfer.__file__\n"
        "detector = dyninfer.load(sys.argv[2])\n"
        "images = np.zeros((2, 3, 8, 8), np.float32)\n"
        "images[0] = 0.9\n"
        "print([o.exit_index for o in detector.infer({'images': images})])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(site), str(bundle)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[0, 1]", done.stderr
