"""The one way to a terminal: text is shown as it is, and nothing in it is obeyed."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.text import Text

from dyninfer.plain_text import plain


class Terminal(Console):
    """A console that reads no markup, and shows what is given to it as text on one line.

    Whatever is printed, cells of tables among it, is given as ``str``, or made by :func:`styled`
    where parts of it have a style.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        # lines are left whole, so that what is copied from them is whole
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every ``str`` that is printed or measured comes through here."""
        return super().render_str(plain(text), **options)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text of which some parts have a style, such as ``("passed", "green")``."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((plain(text), style) for text, style in pairs))


class DescriptionColumn(ProgressColumn):
    """What a progress bar is about, which may be the name of a stage."""

    def render(self, task: Task) -> Text:
        """The description, plain."""
        return styled(task.description)
