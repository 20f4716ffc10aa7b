"""Tables of `strategy.type: Auto` beside single strategies, of rows that `bench.auto` has kept."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean, stdev
from typing import Any

CLASSICAL = "classical"
STRATEGIES = (CLASSICAL, "probe", "full", "LoRA", "gradual", "scratch", "bottom", "Auto", "Auto bottom")

Row = dict[str, Any]


def value_of(row: Row) -> float:
    """Return the test value of a row."""
    return float(row["pearson"] if "pearson" in row else row["accuracy"])


def table(found: list[Row]) -> str:
    """Return tables in Markdown: of each set and strategy test value and cost, and of Auto what it cost over the best single strategy."""
    lines = ["| set | strategy | seeds | test value | processor, s |", "|---" * 5 + "|"]
    groups: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for row in sorted(found, key=lambda row: STRATEGIES.index(row["strategy"])):
        groups[row["set"]].setdefault(row["strategy"], []).append(row)
    sets = dict.fromkeys(row["set"] for row in found)
    for name in sets:
        for strategy, rows in groups[name].items():
            values, seconds = [value_of(row) for row in rows], mean(row["processor"] for row in rows)
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            lines.append(f"| {name} | {strategy} | {len(rows)} | {mean(values):.3f}{spread} | {seconds:.1f} |")
    lines += ["", "| set | best single | its value | Auto | cost above the floor | of whole jobs |", "|---" * 6 + "|"]
    lines += [line for name in sets if (line := _beside(name, groups[name]))]
    return "\n".join(lines)


def _beside(name: str, of: dict[str, list[Row]]) -> str:
    """Return the line of a set; nothing where Auto or its floor were not measured."""
    singles = {
        strategy: mean(map(value_of, rows))
        for strategy, rows in of.items()
        if strategy != CLASSICAL and not strategy.startswith("Auto")
    }
    if "Auto" not in of or "probe" not in singles:
        return ""
    best = max(singles, key=lambda strategy: singles[strategy])
    auto, single, probe = (mean(row["processor"] for row in of[one]) for one in ("Auto", best, "probe"))
    classical = mean(row["processor"] for row in of.get(CLASSICAL, [{"processor": 0.0}]))
    above = f"{(auto - probe - classical) / (single - probe):.2f}" if best != "probe" else ""
    own = mean(map(value_of, of["Auto"]))
    return f"| {name} | {best} | {singles[best]:.3f} | {own:.3f} | {above} | {auto / single:.2f} |"
