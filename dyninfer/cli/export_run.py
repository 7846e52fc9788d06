"""Running an export under a progress bar, whatever the family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dyninfer.cli.common import progress_bar

if TYPE_CHECKING:
    from dyninfer.exporters.family import Exported, Family

SourceT = TypeVar("SourceT")
OptionsT = TypeVar("OptionsT")


def export_with_progress(
    family: Family[SourceT, OptionsT], source: SourceT, target: Path, options: OptionsT, steps: int
) -> Exported:
    """Export; the bar names the step, of which there are about ``steps``."""
    with progress_bar() as progress:
        task = progress.add_task("reading", total=steps)

        def step(description: str) -> None:
            progress.update(task, description=description, advance=1)

        return family.export(source, target, options, step)
