"""Plots as inline SVG. Colours are classes (`s0`, `s1`, ...), which the page's style sheet sets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from retrodistill.stages.reporting.markup import Html, tag

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 24, 40
"""Margins of the plot's area; the label of the vertical axis stands above it."""

COLOURS = 8
"""Series that look different; further ones begin again."""

LABEL = 22
"""Characters of a name in a plot; its tooltip has the whole."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """A map from values to coordinates."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float, *, log: bool = False) -> "Scale":
        """Return a scale that shows all values, with some room on both sides."""
        low, high = min(values), max(values)
        if log:
            room = max((high / low) ** 0.08, 1.1)
            return cls(low / room, high * room, start, end, log=True)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values, some four to six of them."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5)):
                values = [step * 10.0**decade for decade in decades for step in steps]
                values = [value for value in values if self.low <= value <= self.high]
                if len(values) >= 3:
                    return values
            return Scale(self.low, self.high, self.start, self.end).ticks()
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
        lowest = math.ceil(self.low / step)
        return [step * n for n in range(lowest, math.floor(self.high / step) + 1)]


def bars(rows: Sequence[tuple[str, float]], *, label: str) -> Html:
    """Return bars of values around 0, the highest first; each is named when it is pointed at."""
    ordered = sorted(rows, key=lambda row: -row[1])
    values = [value for _, value in ordered]
    y = Scale.of([*values, 0.0], HEIGHT - BOTTOM, TOP)
    width = (WIDTH - LEFT - RIGHT) / max(len(ordered), 1)
    marks = [
        tag(
            "rect",
            tag("title", f"{name}: {value:+.4f}"),
            x=LEFT + place * width,
            y=min(y(value), y(0)),
            width=max(width * 0.85, 0.6),
            height=max(abs(y(value) - y(0)), 0.5),
            class_="up" if value > 0 else "down",
        )
        for place, (name, value) in enumerate(ordered)
        if value
    ]
    zero = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(0), y2=y(0), class_="axis")
    return _plot(label, "queries, best to worst", None, y, [*marks, zero])


def lines(series: Mapping[str, Sequence[Point]], *, x_label: str, label: str) -> Html:
    """Return one line for each series; its points are named when they are pointed at.

    An empty series is not drawn, but counts: those behind it keep their look.
    """
    points = [point for curve in series.values() for point in curve]
    x = Scale.of([a for a, _ in points], LEFT, WIDTH - RIGHT)
    y = Scale.of([b for _, b in points], HEIGHT - BOTTOM, TOP)
    marks: list[Html] = []
    for number, (name, curve) in enumerate(series.items()):
        if not curve:
            continue
        marks.append(tag("polyline", points=_path(curve, x, y), class_=f"line {_colour(number)}"))
        marks += [
            _dot(f"{name}: {b:.4g} at {a:g}", x(a), y(b), number, radius=2.5) for a, b in curve
        ]
    return _plot(label, x_label, x, y, marks)


def named_points(
    points: Mapping[str, Point], *, x_label: str, label: str, line: Sequence[Point] = ()
) -> Html:
    """Return a labelled point for each name, and a line in steps; the horizontal axis is log."""
    coordinates = list(points.values())
    x = Scale.of([a for a, _ in coordinates], LEFT, WIDTH - RIGHT, log=True)
    y = Scale.of([b for _, b in coordinates], HEIGHT - BOTTOM, TOP)
    corners = [c for (_, b), (a, d) in pairwise(line) for c in ((a, b), (a, d))]
    marks = [tag("polyline", points=_path([*line[:1], *corners], x, y), class_="pareto")]
    taken: list[tuple[float, float, float]] = []
    for number, (name, (a, b)) in enumerate(points.items()):
        short = _cut(name)
        wide = 6.6 * len(short)
        right = x(a) + 4 + wide < WIDTH
        start = x(a) + 4 if right else x(a) - 4 - wide
        height = y(b) - 8
        for shift in (0, 25, -13, 38, -26):
            spot = (start, start + wide, height + shift)
            if all(t[0] > spot[1] or t[1] < spot[0] or abs(t[2] - spot[2]) > 12 for t in taken):
                height += shift
                break
        taken.append((start, start + wide, height))
        marks += [
            _dot(f"{name}: {b:.4f} at {a:g} ms", x(a), y(b), number, radius=5),
            tag(
                "text",
                short,
                tag("title", name),
                x=start if right else x(a) - 4,
                y=height,
                text_anchor="start" if right else "end",
                class_="name",
            ),
        ]
    return _plot(label, x_label, x, y, marks)


def cloud(series: Mapping[str, Sequence[Point]], *, x_label: str, label: str) -> Html:
    """Return many small points, one path a series, so that thousands stay light."""
    points = [point for group in series.values() for point in group]
    x = Scale.of([a for a, _ in points], LEFT, WIDTH - RIGHT)
    y = Scale.of([b for _, b in points], HEIGHT - BOTTOM, TOP)
    marks = [
        tag(
            "path",
            d="".join(f"M{x(a):.1f} {y(b):.1f}h0" for a, b in group),
            class_=f"cloud {_colour(number)}",
        )
        for number, group in enumerate(series.values())
    ]
    return _plot(label, x_label, x, y, marks)


def intervals(rows: Sequence[tuple[str, float, float, float]], *, label: str) -> Html:
    """Return name, mean, low and high as points with whiskers, one line each."""
    bottom = TOP + 22 * len(rows) + 4
    margin = 150
    x = Scale.of([n for row in rows for n in row[1:]], margin, WIDTH - RIGHT)
    marks: list[Html] = []
    for number, (name, mean, low, high) in enumerate(rows):
        y = TOP + 22 * number + 13
        said = f"{name}: {mean:.4f}, {low:.4f} to {high:.4f}"
        marks += [
            tag(
                "text",
                _cut(name),
                tag("title", name),
                x=margin - 8,
                y=y + 4,
                text_anchor="end",
                class_="name",
            ),
            tag("line", x1=x(low), x2=x(high), y1=y, y2=y, class_="whisker s0"),
            _dot(said, x(mean), y, 0, radius=4),
        ]
    return _plot(label, "", x, None, marks, left=margin, bottom=bottom)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats: cheaper or equal, and better or equal."""
    front: list[Point] = []
    for cost, value in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def swatch(number: int, *, line: bool = True) -> Html:
    """Return the sign of a series for a legend."""
    stroke = tag("line", x1=1, x2=23, y1=5, y2=5, class_=f"line {_colour(number)}")
    dot = tag("circle", cx=12, cy=5, r=3, class_=f"dot {_colour(number)}")
    return tag(
        "svg",
        stroke if line else None,
        dot,
        viewBox="0 0 24 10",
        class_="swatch",
        aria_hidden="true",
    )


def _plot(
    label: str,
    x_label: str,
    x: Scale | None,
    y: Scale | None,
    marks: Sequence[Html],
    *,
    left: float = LEFT,
    bottom: float = HEIGHT - BOTTOM,
) -> Html:
    """Return the marks within axes; no scale, no ticks."""
    frame: list[Html] = []
    for at, text in _labelled(y):
        frame += [
            tag("line", x1=left, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"),
            tag("text", text, x=left - 6, y=at + 4, text_anchor="end"),
        ]
    for at, text in _labelled(x):
        frame += [
            tag("line", x1=at, x2=at, y1=TOP, y2=bottom, class_="grid"),
            tag("text", text, x=at, y=bottom + 15, text_anchor="middle"),
        ]
    frame += [
        tag("text", label, x=2, y=13, class_="label"),
        tag(
            "text",
            x_label,
            x=WIDTH - RIGHT,
            y=bottom + (32 if x else 16),
            text_anchor="end",
            class_="label",
        ),
    ]
    return tag(
        "svg",
        frame,
        marks,
        viewBox=f"0 0 {WIDTH} {bottom + (BOTTOM if x and x_label else 22):g}",
        class_="plot",
        role="img",
        aria_label=" against ".join(word for word in (label, x_label) if word),
    )


def _labelled(scale: Scale | None) -> list[tuple[float, str]]:
    """Return coordinate and text of each tick, with as many decimals as tell them apart."""
    if scale is None:
        return []
    ticks = scale.ticks()
    if scale.log:
        return [(scale(tick), f"{tick:g}") for tick in ticks]
    digits = next(
        (n for n in range(7) if all(math.isclose(round(t, n), t, abs_tol=1e-9) for t in ticks)), 7
    )
    return [(scale(tick), f"{tick + 0.0:,.{digits}f}") for tick in ticks]


def _path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)


def _dot(said: str, x: float, y: float, number: int, *, radius: float) -> Html:
    return tag("circle", tag("title", said), cx=x, cy=y, r=radius, class_=f"dot {_colour(number)}")


def _colour(number: int) -> str:
    return f"s{number % COLOURS}"


def _cut(name: str) -> str:
    return name if len(name) <= LABEL else name[: LABEL - 1] + "…"
