"""The page of `unfreeze compare --html`: finished runs side by side, in one file that asks for nothing from outside.

Everything that comes from data or from names of files is escaped by the template's engine; the page's policy allows no script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from unfreeze_api.commands import whole
from unfreeze_trainer.commands.compare import Run, lower_is_better, shown, shown_metrics
from unfreeze_trainer.exports.page import styled, templates_of

_TEMPLATE = "compare.html"


def write_page(file: Path, runs: Sequence[Run], doubts: Sequence[str], split: Literal["test", "validation"]) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    file
        Where to.
    runs
        The best one first.
    doubts
        What speaks against comparing them.
    split
        That decides.
    """
    with whole(file) as aside:
        aside.write_text(page(runs, doubts, split), encoding="utf-8")


def page(runs: Sequence[Run], doubts: Sequence[str], split: Literal["test", "validation"]) -> str:
    """Return the page. Parameters as of `write_page`."""
    template, metric = templates_of("commands").get_template(_TEMPLATE), runs[0].report.metric
    return template.render(
        **styled(),
        outcome=_outcome(runs, metric, split),
        doubts=doubts,
        metric=metric,
        split=split,
        runs=[_shown(run, metric, split) for run in runs],
        figures=list(_figures(runs)),
    )


def _value(run: Run, metric: str, split: str) -> float | None:
    value: float | None = getattr(run.report.results, split).get(metric)
    return value


def _outcome(runs: Sequence[Run], metric: str, split: str) -> str:
    """Return which run is the best, in a sentence."""
    best = _value(runs[0], metric, split)
    if best is None:
        return f"None of them has {split} {metric}."
    sentence = f"{runs[0].name} has the best {split} {metric}, {shown(best)}"
    second = _value(runs[1], metric, split) if len(runs) > 1 else None
    if second is None:
        return f"{sentence}."
    if second == best:
        return f"{runs[0].name} and {runs[1].name} have the same {split} {metric}, {shown(best)}."
    return f"{sentence}; the next one is {runs[1].name} with {shown(second)}{' (less is better)' if lower_is_better(metric) else ''}."


def _shown(run: Run, metric: str, split: str) -> dict[str, Any]:
    report, value = run.report, _value(run, metric, split)
    useful = {True: "yes", False: "no"}[report.usefulness.better] if report.usefulness else ""
    is_share = value is not None and 0 <= value <= 1 and not lower_is_better(metric)  # a long bar is a good one
    facts = {
        "job": report.job,
        "base": report.base.source,
        "training data": report.data.sources.get("train", ""),
        "samples": ", ".join(f"{count:,} in {name}" for name, count in report.data.splits.items()),
        "finished": f"{report.finished:%Y-%m-%d %H:%M} UTC",
        "ran on": f"{report.world.world_size} x {report.world.device}, {report.world.engine}, {report.world.precision}",
        "notes": " ".join(report.warnings),
    }
    return {
        "name": run.name,
        "value": shown(value),
        "share": round(100 * value, 1) if value is not None and is_share else None,
        "strategy": report.strategy,
        "trained": f"{run.trained:,}",
        "best_step": f"{report.best_step:,}",
        "seconds": f"{report.seconds:,.0f}",
        "useful": useful,
        "facts": [(term, text) for term, text in facts.items() if text],
    }


def _figures(runs: Sequence[Run]) -> Iterator[tuple[str, list[str]]]:
    """Yield each metric of each split with its values, those of the runs in order."""
    for split in ("test", "validation"):
        for name in dict.fromkeys(name for run in runs for name in shown_metrics(run, split)):
            yield f"{split} {name}", [shown(_value(run, name, split)) for run in runs]
