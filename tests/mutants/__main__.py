"""Single changes of the code that decides answers: ``python -m tests.mutants``.

Cosmic Ray makes the changes: another comparison, another number, a condition turned round. Each is
tried in a copy of the checkout with the tests of its module; one that passes them all survives.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.mutants.equivalent import is_equivalent
from tests.mutants.modules import MODULES

ROOT = Path(__file__).parents[2]
# What a person might get wrong. Of replaced operators those are left out that any test notices, as
# bits of numbers, and those that mean the same, as "is" and "==" of an enumeration.
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv")
COMPARISONS = ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE")
OPERATORS = re.compile(
    rf"core/(ReplaceBinaryOperator_({'|'.join(ARITHMETIC)})_({'|'.join(ARITHMETIC)})"
    rf"|ReplaceComparisonOperator_({'|'.join(COMPARISONS)})_({'|'.join(COMPARISONS)})"
    r"|ReplaceComparisonOperator_(Is_IsNot|IsNot_Is|In_NotIn|NotIn_In)"
    r"|ReplaceUnaryOperator_\w+|Replace(And|Or)With\w+|Replace(True|False)With\w+"
    r"|AddNot|NumberReplacer|Replace(Break|Continue)With\w+|ZeroIterationForLoop)"
)
# Written so that a later mistake is noticed, not for an answer
PRECAUTION = re.compile(r"^\+.*(strict=False|frozen=False|slots=False|kw_only=False)", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """A module's text with one change."""

    module: str
    text: str
    change: str


def mutants_of(module: str) -> list[Mutant]:
    """All changes that are no mere changes of annotations, which nobody evaluates."""
    source = (ROOT / module).read_text(encoding="utf-8")
    found, seen = [], {_code(source)}
    for name in operator_names():
        if not OPERATORS.fullmatch(name):
            continue
        for text in _texts(source, name):
            try:
                code = _code(text)
            except SyntaxError:
                continue
            if code not in seen and not PRECAUTION.search(change := _change(source, text)):
                seen.add(code)
                found.append(Mutant(module, text, change))
    return found


def _texts(source: str, operator: str) -> Iterator[str]:
    occurrence = 0
    while (text := mutate_code(source, get_operator(operator)(), occurrence)) is not None:
        yield text
        occurrence += 1


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _code(text: str) -> str:
    return ast.dump(_WithoutAnnotations().visit(ast.parse(text)))


def _change(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if line[:3] not in ("---", "+++") and line[0] in "-+")


class Checkout:
    """A copy of the tracked files, in which one module at a time is another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)

    def notices(self, mutant: Mutant, seconds: float) -> bool:
        """Whether a test fails, or nothing comes back in time."""
        path = self.folder / mutant.module
        original = path.read_bytes()
        path.write_text(mutant.text, encoding="utf-8")
        try:
            return not self.passes(mutant.module, seconds)
        finally:
            path.write_bytes(original)

    def passes(self, module: str, seconds: float) -> bool:
        """Whether the tests of a module pass within a time."""
        flags = ["-x", "-q", "-p", "no:cacheprovider"]
        shared = os.environ.get("DYNINFER_SHARED", str(ROOT.parent / "shared"))
        surroundings = os.environ | {
            **{"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"},
            "DYNINFER_SHARED": shared,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *flags, *MODULES[module]],
            cwd=self.folder,
            env=surroundings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return False


def try_module(module: str, each: int, seed: int) -> tuple[int, list[Mutant]]:
    """How many mutants were tried, and which survived."""
    everything = [m for m in mutants_of(module) if not is_equivalent(module, m.change)]
    by_line: dict[str, list[Mutant]] = {}
    for mutant in everything:
        by_line.setdefault(mutant.change.partition("\n")[0], []).append(mutant)
    rng = random.Random(f"{module}:{seed}")
    lines = rng.sample(sorted(by_line), min(each, len(by_line)))  # or long lines would have most
    chosen = [rng.choice(by_line[line]) for line in lines]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        checkout = Checkout(Path(folder))
        begun = time.monotonic()
        if not checkout.passes(module, 600):
            raise RuntimeError(f"the tests of {module} fail without any change")
        limit = 30 + 4 * (time.monotonic() - begun)
        survivors = [mutant for mutant in chosen if not checkout.notices(mutant, limit)]
    print(f"{module}: {len(chosen) - len(survivors)} of {len(chosen)} noticed", flush=True)
    for mutant in survivors:
        print(mutant.change + "\n", flush=True)
    return len(chosen), survivors


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 1 where less than 92 % are noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="paths; all that decide answers if absent")
    parser.add_argument("--each", type=int, default=6, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same mutants")
    parser.add_argument("--workers", type=int, default=1, help="modules at once")
    chosen = parser.parse_args(arguments)
    modules = chosen.modules or list(MODULES)
    if unknown := set(modules) - set(MODULES):
        parser.error(f"unknown modules {sorted(unknown)}; expected some of {', '.join(MODULES)}")
    with ThreadPoolExecutor(chosen.workers) as pool:
        done = [*pool.map(lambda m: try_module(m, chosen.each, chosen.seed), modules)]
    tried, survived = sum(count for count, _ in done), sum(len(left) for _, left in done)
    print(f"{tried - survived} of {tried} noticed ({(tried - survived) / max(tried, 1):.0%})")
    return int(tried - survived < 0.92 * tried)


if __name__ == "__main__":
    sys.exit(main())
