"""Charts of the report page: where lines, points and ticks lie; its template draws them as SVG. No drawing library is this small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import floor, isfinite, log10

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 22, 28
_POINTS = 600
"""Points that a line has at most."""
DOTS = 40
"""Points up to which each is drawn."""
_LINES = 8
"""Lines that a chart has at most."""
_TICKS = 8
"""Places whose names have room."""
Point = tuple[float, float]
Span = tuple[Point, Point]
"""Both ends of an interval."""


@dataclass(frozen=True)
class Tick:
    """A mark at an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Band:
    """A stretch of the horizontal axis that has a name."""

    start: float
    width: float
    name: str


@dataclass(frozen=True)
class Mark:
    """A word at a point."""

    x: float
    y: float
    text: str
    anchor: str
    """As SVG's text-anchor: start or end."""


@dataclass(frozen=True)
class Reached:
    """What something has come to in a time."""

    name: str
    seconds: float
    value: float
    low: float | None = None
    """Lower end of its 95 % interval; None where it has none."""
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """What a template draws, in pixels of the view box."""

    name: str
    lines: list[str] = field(default_factory=list)
    """Points of each line, as SVG's polyline takes them."""
    names: list[str] = field(default_factory=list)
    """Of the lines, where there are several."""
    spans: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Intervals: where each begins and ends."""
    marks: list[Mark] = field(default_factory=list)
    """Words at points."""
    points: list[Point] = field(default_factory=list)
    diagonal: str = ""
    """Of a chart whose axes are alike: where both are the same."""
    horizontal: list[Tick] = field(default_factory=list)
    vertical: list[Tick] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    below: str = ""
    """Name of the horizontal axis."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self) -> list[Tick]:
        step = _nice((self.high - self.low) / 5)
        first = -floor(-self.low / step)
        values = [step * number for number in range(first, first + 12) if step * number <= self.high + 1e-9 * step]
        digits = max(0, -floor(log10(step)))
        return [Tick(self.place(value), f"{value:,.{digits}f}") for value in values]


def _nice(step: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    return _Axis(low - room, high + room, start, end)


def lines(
    name: str,
    points: Sequence[Point],
    phases: Sequence[tuple[str, float, float]],
    below: str,
    spans: Sequence[Span] = (),
) -> Chart | None:
    """Return a line over the steps, with the phases behind it and intervals; None where fewer than two points are numbers."""
    kept = [(x, y) for x, y in points if isfinite(y)]
    if len(kept) < 2:  # noqa: PLR2004
        return None
    ends = [edge for _, start, end in phases for edge in (start, end)]
    low, high = min(0, *ends, kept[0][0]), max(*ends, kept[-1][0])
    across = _Axis(low, high if high > low else low + 1, _LEFT, WIDTH - _RIGHT)
    up = _axis([y for _, y in [*kept, *chain(*spans)]], HEIGHT - _BOTTOM, _TOP)
    thinned = kept[:: max(1, len(kept) // _POINTS)] + kept[-1:]
    return Chart(
        name,
        lines=[" ".join(f"{across.place(x)},{up.place(y)}" for x, y in thinned)],
        points=[(across.place(x), up.place(y)) for x, y in kept] if len(kept) <= DOTS else [],
        spans=_placed(spans, across, up),
        horizontal=across.ticks(),
        vertical=up.ticks(),
        bands=[
            Band(across.place(start), round(across.place(end) - across.place(start), 1), phase)
            for phase, start, end in phases
        ],
        below=below,
    )


def profile(name: str, found: Mapping[str, Mapping[str, float]], below: str) -> Chart | None:
    """Return a line for each of several models over its places, from input to output; None where none has two.

    Parameters
    ----------
    found
        By model, the value of each place in order.
    below
        Name of the horizontal axis.
    """
    known = [(model, {place: y for place, y in values.items() if isfinite(y)}) for model, values in found.items()]
    known = [(model, values) for model, values in known if len(values) > 1][:_LINES]
    if not known:
        return None
    across = _Axis(0, 1, _LEFT + 12, WIDTH - _RIGHT - 30)
    up = _axis([y for _, values in known for y in values.values()], HEIGHT - _BOTTOM, _TOP)
    drawn = [
        [(across.place(number / (len(values) - 1)), up.place(y)) for number, y in enumerate(values.values())]
        for _, values in known
    ]
    places = [*known[0][1]]
    if any([*values] != places for _, values in known):
        places = ["input", "output"]  # each has layers of its own
    last = len(places) - 1
    kept = {number * last // (min(len(places), _TICKS) - 1) for number in range(min(len(places), _TICKS))}
    return Chart(
        name,
        lines=[" ".join(f"{x},{y}" for x, y in points) for points in drawn],
        names=[model for model, _ in known] if len(found) > 1 else [],
        points=[point for points in drawn for point in points] if len(drawn) == 1 else [],
        horizontal=[Tick(across.place(number / last), places[number]) for number in sorted(kept)],
        vertical=up.ticks(),
        below=below,
    )


def reached(name: str, found: Sequence[Reached], below: str) -> Chart | None:
    """Return a point with its name and interval for each of what was reached, by its time; None where there are fewer than two."""
    kept = [one for one in found if isfinite(one.value)]
    if len(kept) < 2:  # noqa: PLR2004
        return None
    spans = [
        ((one.seconds, one.low), (one.seconds, one.high))
        for one in kept
        if one.low is not None and one.high is not None
    ]
    most = max(one.seconds for one in kept) or 1.0
    across = _Axis(-0.03 * most, 1.05 * most, _LEFT, WIDTH - _RIGHT)
    up = _axis([*(one.value for one in kept), *(y for _, y in chain(*spans))], HEIGHT - _BOTTOM, _TOP)
    points = [(across.place(one.seconds), up.place(one.value)) for one in kept]
    return Chart(
        name,
        points=points,
        spans=_placed(spans, across, up),
        marks=[
            Mark(x + (8 if left else -8), y - 5, one.name, "start" if left else "end")
            for one, (x, y) in zip(kept, points, strict=True)
            for left in [x < WIDTH / 2]
        ],
        horizontal=[tick for tick in across.ticks() if tick.at >= across.place(0)],
        vertical=up.ticks(),
        below=below,
    )


def _placed(spans: Sequence[Span], across: _Axis, up: _Axis) -> list[tuple[float, float, float, float]]:
    return [(across.place(a), up.place(b), across.place(c), up.place(d)) for (a, b), (c, d) in spans]


def scatter(name: str, points: Sequence[Point], below: str, *, alike: bool = True) -> Chart | None:
    """Return points over axes with the same range, and where both are the same; None without points."""
    kept = [(x, y) for x, y in points if isfinite(x) and isfinite(y)]
    if not kept:
        return None
    size = 320
    values = [value for point in kept for value in point] if alike else [0.0, 1.0]
    across = _axis(values, _LEFT, size - _RIGHT)
    up = _axis(values, size - _BOTTOM, _TOP)
    corners = [f"{across.place(value)},{up.place(value)}" for value in (across.low, across.high)]
    return Chart(
        name,
        points=[(across.place(x), up.place(y)) for x, y in kept],
        diagonal=" ".join(corners),
        horizontal=across.ticks()[1::2] if len(across.ticks()) > 4 else across.ticks(),  # noqa: PLR2004
        vertical=up.ticks(),
        below=below,
        width=size,
        height=size,
        right=size - _RIGHT,
        bottom=size - _BOTTOM,
    )
