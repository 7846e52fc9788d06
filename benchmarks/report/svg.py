"""SVG as values: elements that escape what they hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from dyninfer.plain_text import plain

Value = str | float | int
Point = tuple[float, float]

WIDE, NARROW = 920, 360
FONT_SIZE = 13
_CHARACTER = 0.56  # of the font size: mean width in common system fonts
_NONCHARACTERS = re.compile(r"[\ufffe\uffff]")  # which XML does not allow


@dataclass(frozen=True)
class Element:
    """An element with its attributes and children, text among them."""

    tag: str
    attributes: tuple[tuple[str, Value], ...] = ()
    children: tuple[Element | str, ...] = ()

    def render(self) -> str:
        """Its markup; whatever the attributes and the text hold is escaped."""
        attributes = "".join(f' {name}="{clean(value)}"' for name, value in self.attributes)
        inside = "".join(
            child.render() if isinstance(child, Element) else clean(child)
            for child in self.children
        )
        return f"<{self.tag}{attributes}>{inside}</{self.tag}>"


def clean(value: Value) -> str:
    """Escaped for text and attributes; numbers with at most two decimals."""
    if isinstance(value, str):
        return escape(_NONCHARACTERS.sub("\N{REPLACEMENT CHARACTER}", plain(value)), quote=True)
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def element(tag: str, *children: Element | str, **attributes: Value) -> Element:
    """An element; ``class_`` and ``stroke_width`` stand for ``class`` and ``stroke-width``."""
    named = tuple((n.rstrip("_").replace("_", "-"), value) for n, value in attributes.items())
    return Element(tag, named, children)


def text(
    x: float, y: float, content: str, *, anchor: str = "start", class_: str = "label"
) -> Element:
    """A line of text whose baseline starts, ends or is centred (``middle``) at (x, y)."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Element:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def polyline(points: Sequence[Point], class_: str) -> Element:
    """Points joined by straight lines."""
    joined = " ".join(f"{clean(x)},{clean(y)}" for x, y in points)
    return element("polyline", points=joined, class_=class_)


def circle(x: float, y: float, radius: float, class_: str, tooltip: str = "") -> Element:
    """A dot; ``tooltip`` is shown to a mouse that rests on it."""
    return element("circle", *_hint(tooltip), cx=x, cy=y, r=radius, class_=class_)


def rect(
    x: float, y: float, width: float, height: float, class_: str, tooltip: str = ""
) -> Element:
    """A rectangle; ``tooltip`` is shown to a mouse that rests on it."""
    return element("rect", *_hint(tooltip), x=x, y=y, width=width, height=height, class_=class_)


def _hint(tooltip: str) -> tuple[Element, ...]:
    return (element("title", tooltip),) if tooltip else ()


def text_width(content: str) -> float:
    """About how wide a text is: system fonts differ."""
    return _CHARACTER * FONT_SIZE * len(content)


def shortened(content: str, width: float) -> str:
    """``content``, cut to about ``width`` with an ellipsis where it is longer."""
    room = max(2, int(width / (_CHARACTER * FONT_SIZE)))
    return (
        content
        if len(content) <= room
        else content[: room - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    )


@dataclass(frozen=True)
class Frame:
    """A drawing's size and the margins of its axes."""

    width: float
    height: float
    left: float = 52
    right: float = 16
    top: float = 30
    bottom: float = 46

    @property
    def x_end(self) -> float:
        """Right end of the horizontal axis."""
        return self.width - self.right

    @property
    def y_end(self) -> float:
        """Lower end of the vertical axis."""
        return self.height - self.bottom


def drawing(frame: Frame, key: str, title: str, description: str, *children: Element) -> Element:
    """A picture of its own for screen readers: ``title`` names it, ``description`` tells it.

    ``key`` is unique on the page.
    """
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *children,
        viewBox=f"0 0 {clean(frame.width)} {clean(frame.height)}",
        width=frame.width,
        role="img",
        aria_labelledby=f"{key}-title",
        aria_describedby=f"{key}-desc",
        id=key,
    )


@dataclass(frozen=True)
class Chart:
    """One chart at two sizes, of which a page shows what fits.

    ``places`` are those of its marks at each setting of the slider, by the marks' names.
    """

    wide: Element
    narrow: Element
    places: Mapping[str, Sequence[Point]] = field(default_factory=dict)


def moving_chart(mark: str, draw: Callable[[int], tuple[Element, list[Point]]]) -> Chart:
    """Draw at both sizes; the marks are called ``mark`` and the width."""
    (wide, on_wide), (narrow, on_narrow) = draw(WIDE), draw(NARROW)
    return Chart(wide, narrow, {f"{mark}-{WIDE}": on_wide, f"{mark}-{NARROW}": on_narrow})


def movable(name: str, place: Point, *children: Element) -> Element:
    """What is drawn around the origin and then moved as one, by a script too."""
    return element("g", *children, data_moves=name, transform=moved_to(place))


def moved_to(place: Point) -> str:
    """The value of an attribute ``transform``."""
    x, y = place
    return f"translate({x:.2f} {y:.2f})"
