"""Charts of the report page: where lines, points and ticks lie; its template draws them as SVG. No drawing library is this small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor, isfinite, log10

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 22, 28
_POINTS = 600
"""Points that a line has at most."""
Point = tuple[float, float]


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
class Chart:
    """What a template draws, in pixels of the view box."""

    name: str
    lines: list[str] = field(default_factory=list)
    """Points of each line, as SVG's polyline takes them."""
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


def lines(name: str, points: Sequence[Point], phases: Sequence[tuple[str, float, float]], below: str) -> Chart | None:
    """Return a line over the steps, with the phases behind it; None where fewer than two points are numbers."""
    kept = [(x, y) for x, y in points if isfinite(y)]
    if len(kept) < 2:  # noqa: PLR2004
        return None
    ends = [edge for _, start, end in phases for edge in (start, end)]
    low, high = min(0, *ends, kept[0][0]), max(*ends, kept[-1][0])
    across = _Axis(low, high if high > low else low + 1, _LEFT, WIDTH - _RIGHT)
    up = _axis([y for _, y in kept], HEIGHT - _BOTTOM, _TOP)
    thinned = kept[:: max(1, len(kept) // _POINTS)] + kept[-1:]
    return Chart(
        name,
        lines=[" ".join(f"{across.place(x)},{up.place(y)}" for x, y in thinned)],
        points=[(across.place(x), up.place(y)) for x, y in kept] if len(kept) <= 40 else [],  # noqa: PLR2004
        horizontal=across.ticks(),
        vertical=up.ticks(),
        bands=[
            Band(across.place(start), round(across.place(end) - across.place(start), 1), phase)
            for phase, start, end in phases
        ],
        below=below,
    )


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
