"""`unfreeze compare`: finished runs side by side, and whether their figures may be compared at all."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from pydantic import ValidationError

from unfreeze_api.contracts.report import Report
from unfreeze_api.grammar.amounts import figure
from unfreeze_trainer.commands.local import table_or_json

if TYPE_CHECKING:
    from rich.table import Table

REPORT = "report.json"
_FILE_WIDTH = 10_000
"""Columns that a line has at most in a file or a pipe: as many as it needs."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    """What it is called beside the others: its folder."""
    report: Report

    @property
    def trained(self) -> int:
        """Parameters that the phase which trained most has trained."""
        return max((phase.trainable_parameters for phase in self.report.phases), default=0)

    def rows(self, split: str) -> str:
        """Return what tells whether two runs were measured on the same rows of a split, empty where nothing does."""
        data = self.report.data
        pins, drawn = data.pins.get(split), split not in data.sources
        if not pins or (drawn and data.held_out_seed is None):
            return ""
        measured_on = [pins, data.splits.get(split), data.labels, (data.held_out_seed, data.splits) if drawn else None]
        return json.dumps(measured_on, sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """Return what the table shows, in camelCase."""
        report = self.report
        return {
            "run": self.name,
            "job": report.job,
            "base": report.base.source,
            "strategy": report.strategy,
            "trainedParameters": self.trained,
            "bestStep": report.best_step,
            "seconds": report.seconds,
            "validation": dict(report.results.validation),
            "test": dict(report.results.test),
            "useful": report.usefulness.better if report.usefulness else None,
        }


@click.command()
@table_or_json
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page of its own besides, one file that asks for nothing from outside; one that is there is replaced.",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(exists=True, path_type=Path))
def compare(runs: tuple[Path, ...], kind: Literal["table", "json"], page: Path | None) -> None:
    """Print finished runs side by side, the best by the test metric first.

    RUN is a run's folder, or its report.json. Without test data the validation metric decides, which has chosen each
    run's best step and flatters it. Where runs were not measured on the same rows, that is said.
    """
    found = [Run(name, read(path)) for name, path in zip(_names(runs), runs, strict=True)]
    ordered = ranked(found)
    doubts = doubtful(found)
    if page:
        from unfreeze_trainer.commands.compare_page import write_page

        write_page(page, ordered, doubts, judge_of(found))
    if kind == "json":
        click.echo(json.dumps({"runs": [run.to_json() for run in ordered], "warnings": doubts}, indent=2))
        return
    _print(ordered)
    for doubt in doubts:
        click.echo(f"Warning: {doubt}", err=True)


def read(path: Path) -> Report:
    """Return the report of a run, by its folder or file; ClickException where there is none."""
    file = path / REPORT if path.is_dir() else path
    try:
        return Report.read(file.read_bytes())
    except FileNotFoundError:
        raise click.ClickException(
            f"{path} has no {REPORT}: the run has not ended well yet, or this is not a run's folder"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise click.ClickException(
            f"{file} is no report of a run: {where}{': ' if where else ''}{first['msg']}"
        ) from None


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    folders = [path.resolve() if path.is_dir() else path.resolve().parent for path in paths]
    longest = max(len(folder.parts) for folder in folders)
    for length in range(1, longest + 1):
        names = ["/".join(folder.parts[-length:]).replace("//", "/") for folder in folders]
        if len(set(names)) == len(set(folders)):
            break
    return names


def ranked(runs: Sequence[Run]) -> list[Run]:
    """Return runs from the best to the worst by the metric of the first one, those without it last."""
    metric, split = runs[0].report.metric, judge_of(runs)

    def order(run: Run) -> tuple[bool, float]:
        value = getattr(run.report.results, split).get(metric)
        return value is None, 0.0 if value is None else (value if lower_is_better(metric) else -value)

    return sorted(runs, key=order)


def lower_is_better(metric: str) -> bool:
    """Return whether less of a metric is better."""
    from unfreeze_api.tasks import TASKS

    return next((one.better == "Lower" for task in TASKS for one in task.metrics if one.name == metric), False)


def judge_of(runs: Sequence[Run]) -> Literal["test", "validation"]:
    """Return the split that decides: test, where each run has been measured on it."""
    return "test" if all(run.report.metric in run.report.results.test for run in runs) else "validation"


def doubtful(runs: Sequence[Run]) -> list[str]:
    """Return what speaks against comparing the figures of runs, for people."""
    first, doubts, split = runs[0], [], judge_of(runs)
    for run in runs[1:]:
        if run.report.metric != first.report.metric:
            doubts.append(
                f"{run.name} chose its best step by {run.report.metric}, {first.name} by {first.report.metric}"
            )
        mine, others = run.rows(split), first.rows(split)
        if not mine or not others:
            doubts.append(f"{run.name} and {first.name} do not both say which rows of {split} they were measured on")
        elif mine != others:
            doubts.append(f"{run.name} was not measured on the same {split} rows as {first.name}")
    if split == "validation" and any(run.report.results.test for run in runs):
        doubts.append("not every run has been measured on test data: validation decides")
    return doubts


def _print(runs: Sequence[Run]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    table = _table(runs, {run.report.metric for run in runs}, alone=False)
    if narrow := console.measure(table, options=console.options.update_width(_FILE_WIDTH)).maximum > console.width:
        table = _table(runs, {run.report.metric for run in runs}, alone=True)
    console.print(table)
    if narrow:
        click.echo(
            "The terminal is too narrow for all metrics: a file or a pipe gets them, and --output json.", err=True
        )


def _table(runs: Sequence[Run], chosen: Collection[str], *, alone: bool) -> Table:
    """Return a row for each run; of the metrics those that chose the best steps alone, or all."""
    from rich.table import Table

    metrics = {
        split: [
            name
            for name in dict.fromkeys(name for run in runs for name in shown_metrics(run, split))
            if not alone or name in chosen
        ]
        for split in ("validation", "test")
    }
    table = Table("run", "strategy", "trained", "best step", "seconds")
    for split, names in metrics.items():
        for name in names:
            table.add_column(f"{split} {name}")
    for column in table.columns:
        column.overflow = "fold"
    for column in table.columns[2:]:
        column.justify = "right"
    for run in runs:
        report = run.report
        figures = [
            shown(getattr(report.results, split).get(name)) for split, names in metrics.items() for name in names
        ]
        table.add_row(
            run.name, report.strategy, f"{run.trained:,}", f"{report.best_step:,}", f"{report.seconds:,.0f}", *figures
        )
    return table


def shown_metrics(run: Run, split: str) -> list[str]:
    """Return the metrics of a split that have a column: the one that chose the best step, then the others."""
    names = list(getattr(run.report.results, split))
    return sorted(names, key=lambda name: (name != run.report.metric, name == "loss"))


def shown(value: float | None) -> str:
    """Return a figure as the table and the page have it: nothing where there is none."""
    return "" if value is None else figure(value, 4)
