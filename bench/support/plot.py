"""A small SVG of how figures grow with the number of jobs, on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

WIDTH, HEIGHT = 260, 200
LEFT, TOP = 46, 30
INNER = (WIDTH - LEFT - 14, HEIGHT - TOP - 34)
PANELS: tuple[tuple[str, Callable[[dict[str, Any]], float]], ...] = (
    ("Peak memory, MiB", lambda row: row["peak_mib"]),
    ("Processor time of a start, s", lambda row: row["cpu_s"]),
    ("One more job: ms to its children, p50", lambda row: row["one_more_ms"]["p50"]),
)


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figure: a panel for each of PANELS, finished jobs to the right."""
    rows = [row for row in rows if row["finished"]]
    panels = [
        f'<g transform="translate({number * WIDTH},0)">{_panel(title, [(row["finished"], get(row)) for row in rows])}</g>'
        for number, (title, get) in enumerate(PANELS)
    ]
    size = f'viewBox="0 0 {len(PANELS) * WIDTH} {HEIGHT}" width="{len(PANELS) * WIDTH}" height="{HEIGHT}"'
    style = '<rect width="100%" height="100%" fill="white"/>'
    font = 'font-family="sans-serif" font-size="10" fill="#333"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{style}\n' + "\n".join(panels) + "\n</svg>\n"


def _panel(title: str, points: Sequence[tuple[float, float]]) -> str:
    x, x_ticks = _axis([point[0] for point in points], LEFT, INNER[0])
    y, y_ticks = _axis([point[1] for point in points], TOP + INNER[1], -INNER[1])
    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>']
    for tick in x_ticks:
        line = f'<line x1="{x(tick):.1f}" y1="{TOP}" x2="{x(tick):.1f}" y2="{TOP + INNER[1]}" stroke="#ddd"/>'
        parts += [line, f'<text x="{x(tick):.1f}" y="{TOP + INNER[1] + 14}" text-anchor="middle">{tick:,g}</text>']
    for tick in y_ticks:
        line = f'<line x1="{LEFT}" y1="{y(tick):.1f}" x2="{LEFT + INNER[0]}" y2="{y(tick):.1f}" stroke="#ddd"/>'
        parts += [line, f'<text x="{LEFT - 4}" y="{y(tick) + 3:.1f}" text-anchor="end">{tick:,g}</text>']
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="#06c" stroke-width="1.5"/>')
    parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5" fill="#06c"/>' for a, b in points]
    return "".join(parts)


def _axis(values: Sequence[float], start: float, length: float) -> tuple[Callable[[float], float], list[float]]:
    """Return the function from a value to its place, and the powers of ten that span the values."""
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    return lambda value: start + length * (math.log10(value) - low) / (high - low), [
        10.0**power for power in range(low, high + 1)
    ]
