"""`unfreeze curve`: what transfer is worth at several sizes of the data, by finished runs that have asked for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from unfreeze_trainer.commands.compare import read
from unfreeze_trainer.commands.local import table_or_json
from unfreeze_trainer.judgement.curve import Point, digits_of, verdict

if TYPE_CHECKING:
    from unfreeze_api.contracts.decision import Decision
    from unfreeze_api.contracts.report import Report

OTHERS = {"Scratch": "random weights", "Baseline": "classical models"}
"""What a run's decision of this type compares its model with."""
_MODEL, _GAIN = " of the model", "by how much the model is better"


@click.command()
@table_or_json
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(exists=True, path_type=Path))
def curve(runs: tuple[Path, ...], kind: Literal["table", "json"]) -> None:
    """Print what transfer is worth at the sizes of data of finished runs, and where that ends.

    RUN is the folder of a run of a job with evidence.scratch, evidence.baseline or strategy.type Auto, or its report.json: the same job on
    different numbers of training samples. Of several runs of the same size, with other seeds, the mean is said.
    """
    _require_different(runs)
    reports = [read(path) for path in runs]
    _require_alike(runs, reports)
    found = {question: list(_points(reports, question)) for question in OTHERS}
    found = {question: points for question, points in found.items() if points}
    if not found:
        raise click.ClickException(
            "none of these runs is compared with anything: set evidence.scratch or evidence.baseline in their jobs"
        )
    curves = [(OTHERS[question], *_ordered(points)) for question, points in found.items()]
    sentences = [verdict(points, metric=metric, other=other) for other, metric, points in curves]
    if kind == "json":
        told = [
            {"over": other, "metric": metric, "verdict": sentence, "points": [asdict(point) for point in points]}
            for (other, metric, points), sentence in zip(curves, sentences, strict=True)
        ]
        click.echo(json.dumps({"curves": told}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    for (other, metric, points), sentence in zip(curves, sentences, strict=True):
        table = Table("training samples", f"gain in {metric} over {other}", "from", "to")
        digits = digits_of(points)
        for point in points:
            table.add_row(
                f"{point.samples:,}", *(f"{value:+.{digits}f}" for value in (point.gain, point.low, point.high))
            )
        for column in table.columns:
            column.justify = "right"
        Console(highlight=False, markup=False).print(table)
        click.echo(f"{sentence[:1].upper()}{sentence[1:]}.")


def _ordered(points: Sequence[tuple[str, Point]]) -> tuple[str, list[Point]]:
    """Return the metric, and points from the smallest size to the largest."""
    metrics = sorted({metric for metric, _ in points})
    if len(metrics) > 1:
        raise click.ClickException(
            f"these runs are compared by different metrics, {' and '.join(metrics)}: a curve is of one"
        )
    return metrics[0], sorted((point for _, point in points), key=lambda point: point.samples)


def _require_different(runs: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for path in runs:
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        if (other := seen.setdefault(folder, path)) is not path:
            raise click.ClickException(f"{other} and {path} are the same run: name it once, or it would count twice")


def _require_alike(runs: Sequence[Path], reports: Sequence[Report]) -> None:
    first = reports[0]
    for path, report in zip(runs, reports, strict=True):
        for what, one, other in (
            ("starts from", report.base.source, first.base.source),
            ("has the strategy", report.strategy, first.strategy),
            ("chooses its best step by", report.metric, first.metric),
            ("has the labels", report.data.labels, first.data.labels),
        ):
            if one != other:
                raise click.ClickException(
                    f"{path} {what} {one}, and {runs[0]} {other}: a curve is of one job on more and more training samples"
                )


def _points(reports: Sequence[Report], question: str) -> Iterator[tuple[str, Point]]:
    """Yield metric and gain of each run that has a decision of a type."""
    for report in reports:
        for decision in report.decisions:
            if decision.type == question and (point := _point(decision, report.data.splits["train"])):
                yield point


def _point(decision: Decision, samples: int) -> tuple[str, Point] | None:
    """Return metric and gain of a decision; of two trainings from random weights over the better one."""
    metric = next((one.name.removesuffix(_MODEL) for one in decision.evidence if one.name.endswith(_MODEL)), None)
    gains = [
        Point(samples, one.value, one.low, one.high)
        for one in decision.evidence
        if one.name.startswith(_GAIN) and one.value is not None and one.low is not None and one.high is not None
    ]
    return (metric, min(gains, key=lambda point: point.gain)) if metric and gains else None
