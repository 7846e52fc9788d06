"""Messages of library code make sense to who calls it from Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support import ROOT

OPTION = re.compile(r"--[a-z{]")
LIBRARY = [
    *("dyninfer/bundle", "dyninfer/evaluation", "dyninfer/images", "dyninfer/monitoring"),
    *("dyninfer/results", "dyninfer/routing", "dyninfer/search", "engines", "exporters"),
]
PARTS_OF_COMMANDS = ("--annotations LABELS", "--risk 0.05", "--force-reinstall", "--provider ")
"""What a message completes to a whole command line."""
OF_A_DETECTOR = [
    ROOT / "exporters" / "cascade" / f"{name}.py"
    for name in ("plan", "numbering", "boxes", "guesses", "options", "checkpoints", "write")
]
"""Their errors are completed in one place: see test_options_of_detectors_are_called_fields."""


def texts_of(source: str) -> Iterator[str]:
    """Every text of a module but its docstrings; what is put into it as {}."""
    tree = ast.parse(source)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            yield str(node.value)


def for_the_shell_only(text: str) -> bool:
    """Whether an option stands alone: neither in brackets nor in a whole command."""
    if text.strip().startswith(PARTS_OF_COMMANDS):
        return False
    for option in OPTION.finditer(text):
        before = text[: option.start()]
        in_brackets = before.rfind("(") > before.rfind(")")
        if not in_brackets and not re.search(r"\b(dyninfer [a-z]|pip install|in Python)", text):
            return True
    return False


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("give it with --config", True),
        ("fewer (50 are few), or --folds", True),
        ("give its YAML as config (--config)", False),
        ("run: dyninfer build a.dyn --force", False),
        ("replace it with --overwrite (in Python: overwrite=True)", False),
    ],
)
def test_which_messages_are_for_the_shell_only(text: str, wrong: bool) -> None:
    assert for_the_shell_only(text) is wrong


@pytest.mark.parametrize("folder", LIBRARY)
def test_no_message_of_library_code_knows_options_alone(folder: str) -> None:
    modules = [path for path in sorted((ROOT / folder).rglob("*.py")) if path not in OF_A_DETECTOR]
    assert modules
    wrong = [
        (str(path.relative_to(ROOT)), text)
        for path in modules
        for text in texts_of(path.read_text("utf-8"))
        if for_the_shell_only(text)
    ]
    assert wrong == []
