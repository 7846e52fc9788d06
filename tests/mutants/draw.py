"""Which single changes of a module there are, and some of them drawn by a seed."""

from __future__ import annotations

import ast
import difflib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

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
# Written so that a later mistake is noticed (as the * before parameters that are given by name), or
# to save a copy or time: not for an answer
PRECAUTION = re.compile(
    r"^\+.*(strict=False|frozen=False|slots=False|kw_only=False|copy=True|[ (]/,|@lru_cache\("
    r"|if not TYPE_CHECKING)",
    re.MULTILINE,
)
Place = tuple[str, int]  # an operator, and which of its occurrences in the module


@dataclass(frozen=True)
class Mutant:
    """A module's text with one change: its lines, with - and + before them."""

    module: str
    text: str
    change: str
    line: int  # number of the first


class Drawer:
    """The changes of one module in a checkout."""

    def __init__(self, root: Path, module: str) -> None:
        self.module = module
        self.source = (root / module).read_text(encoding="utf-8")
        self._code = ast.dump(ast.parse(self.source))
        self._by_line: dict[str, list[Place]] = {}
        lines = self.source.splitlines()
        for place, line in _places(self.source):
            self._by_line.setdefault(lines[line - 1], []).append(place)

    @property
    def changes(self) -> int:
        """How many there are."""
        return sum(map(len, self._by_line.values()))

    def draw(self, count: int, seed: int) -> list[Mutant]:
        """One change in each of some lines, or long lines would have most.

        Lines and changes are ordered by chance and their own text, so that a change of the module
        elsewhere leaves what a seed draws as it is.
        """
        drawn: list[Mutant] = []
        for line in sorted(self._by_line, key=lambda text: _chance(self.module, seed, text)):
            if len(drawn) == count:
                break
            places = self._by_line[line]
            ordered = sorted(places, key=lambda place: _chance(line, seed, str(place)))
            drawn += [mutant for place in ordered if (mutant := self._mutant(*place))][:1]
        return drawn

    def _mutant(self, operator: str, occurrence: int) -> Mutant | None:
        """None where the change is none, is no Python, or forgoes a precaution."""
        text = mutate_code(self.source, get_operator(operator)(), occurrence)
        try:
            if text is None or ast.dump(ast.parse(text)) == self._code:
                return None
        except SyntaxError:
            return None
        compared = difflib.unified_diff(
            self.source.splitlines(), text.splitlines(), n=0, lineterm=""
        )
        lines = list(compared)[2:]  # after the names of the files
        change = "\n".join(line for line in lines if line[0] in "-+")
        first = int(re.findall(r"\d+", lines[0])[0])
        return None if PRECAUTION.search(change) else Mutant(self.module, text, change, first)


def _chance(*parts: object) -> float:
    return random.Random(":".join(map(str, parts))).random()


def _places(source: str) -> Iterator[tuple[Place, int]]:
    """All places with their lines, but those in annotations, which nobody evaluates."""
    annotated = _annotations(ast.parse(source))
    nodes = list(ast_nodes(get_ast(source)))
    for name in filter(OPERATORS.fullmatch, operator_names()):
        operator = get_operator(name)()
        positions = (each for node in nodes for each in operator.mutation_positions(node))
        for occurrence, (begin, _) in enumerate(positions):
            if not any(first <= begin < last for first, last in annotated):
                yield (name, occurrence), begin[0]


def _annotations(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end, as (line, column)."""
    found = []
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if isinstance(part, ast.expr) and part.end_lineno and part.end_col_offset:
                end = part.end_lineno, part.end_col_offset
                found.append(((part.lineno, part.col_offset), end))
    return found
