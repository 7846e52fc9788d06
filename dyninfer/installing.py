"""What to type, from where dyninfer was installed."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def pip_install(*extras: str, options: str = "") -> str:
    """The command that adds ``extras``, for the Python that runs and the dyninfer that it has.

    A checkout, a folder, an archive and a repository are named, since no index needs to have them.
    """
    what = f"[{','.join(extras)}]" if extras else ""
    words = ["install", options] if options else ["install"]
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return " ".join([_pip(), *words, "-e", f'"{checkout}{what}"'])
    return " ".join([_pip(), *words, f'"dyninfer{what}{_origin()}"'])


def command_words() -> list[str]:
    """How dyninfer is started here: by its name where a shell finds it, else as it was started."""
    started = Path(sys.argv[0])
    if started.name != "dyninfer" or shutil.which("dyninfer") == str(started.absolute()):
        return ["dyninfer"] if shutil.which("dyninfer") else [sys.executable, "-m", "dyninfer"]
    return [str(started)]


def _pip() -> str:
    """``pip``, or the whole command where that is another Python's or none's."""
    found = shutil.which("pip")
    if found is not None and Path(found).parent == Path(sys.executable).parent:
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"


def _origin() -> str:
    """`` @ URL`` where pip has noted one for this installation (PEP 610)."""
    try:
        noted = json.loads(distribution("dyninfer").read_text("direct_url.json") or "{}")
        vcs = noted.get("vcs_info")
        prefix, commit = (f"{vcs['vcs']}+", f"@{vcs['commit_id']}") if vcs else ("", "")
        return f" @ {prefix}{noted['url']}{commit}"
    except (PackageNotFoundError, ValueError, KeyError):  # an index's, or nothing is noted
        return ""
