"""What was tried and what came of it: written after every trial, and gone on from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

SURVIVED, NOTICED = "survived", "noticed"


class Record:
    """Outcomes by module and change.

    A change that survived is tried again when a run goes on, since a test may have been written
    for it; its outcomes are kept in their order.
    """

    def __init__(self, path: Path | None, each: int, seed: int) -> None:
        self._path, self._each, self._seed = path, each, seed
        self.modules: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if (found["each"], found["seed"]) != (each, seed):
                raise ValueError(
                    f"{path} is of --each {found['each']} --seed {found['seed']}; give these, or "
                    "another file"
                )
            self.modules = found["modules"]

    def begin(self, module: str, changes: int) -> None:
        """Note how many changes of a module there are to draw from."""
        self.modules.setdefault(module, {"drawn": {}})["changes"] = changes

    def add(self, module: str, change: str, outcome: str) -> None:
        """Note what came of a change: SURVIVED, NOTICED or why it is equivalent."""
        outcomes = self.modules[module]["drawn"].setdefault(change, [])
        if not outcomes or outcomes[-1] != outcome or outcome == SURVIVED:
            outcomes.append(outcome)
        if self._path is not None:
            begun = self._path.with_suffix(".part")
            begun.write_text(json.dumps(self._document(), indent=1) + "\n", encoding="utf-8")
            begun.replace(self._path)

    def is_noticed(self, module: str, change: str) -> bool:
        """Whether tests have noticed it already."""
        return self.modules[module]["drawn"].get(change, [""])[-1] == NOTICED

    def sum(self) -> dict[str, int]:
        """Counts of changes: all, drawn, and of these equivalent, noticed at first and now."""
        drawn = [o for each in self.modules.values() for o in each["drawn"].values()]
        equivalent = [o for o in drawn if o[-1] not in (SURVIVED, NOTICED)]
        return {
            "changes": sum(each["changes"] for each in self.modules.values()),
            "drawn": len(drawn),
            "equivalent": len(equivalent),
            "noticed_at_first": sum(o[0] == NOTICED for o in drawn),
            "noticed": sum(o[-1] == NOTICED for o in drawn),
            "survived": sum(o[-1] == SURVIVED for o in drawn),
        }

    def _document(self) -> dict[str, Any]:
        command = f"python -m tests.mutants --each {self._each} --seed {self._seed} --record "
        return {
            "command": command + shlex.quote(str(self._path)),
            "each": self._each,
            "seed": self._seed,
            "sum": self.sum(),
            "modules": self.modules,
        }
