"""What `unfreeze run` shows: a progress bar while it runs, a table when it is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from unfreeze_api.contracts.progress import Progress
from unfreeze_api.grammar.amounts import figure
from unfreeze_trainer.exports.outcome import in_order, outcome, went_back
from unfreeze_trainer.exports.report import read_report

if TYPE_CHECKING:
    from unfreeze_api.contracts.report import DataReport, Report
    from unfreeze_api.contracts.resolved import ResolvedJob

_POLL_SECONDS = 0.5


def show_progress(
    job: ResolvedJob,
    read: Callable[[], Progress | None],
    ended: Callable[[], bool],
    activity: Callable[[], str],
    warned: set[str] | None = None,
) -> None:
    """Show how far a job is, and what it does beside training, until it has ended. Ctrl-C returns.

    Warnings that `warned` has are not printed; those that are come to it.

    Without a terminal there is a line for each evaluation and for each activity.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{job.name}: {job.strategy.type} on {_workers(job)}, run folder {job.output.path}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    said, looked, warned = _Said(console), False, set() if warned is None else warned
    try:
        with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("starting", total=None, text="")
            while not ended():
                progress, doing = read() or Progress(), activity()
                if progress.recovery:
                    said.once("recovery", f"broken checkpoint: {progress.recovery.message}")
                for one in progress.decisions or ():
                    said.once(f"decision {one.key}", f"decided: {one.type}: {one.answer}: {one.message}")
                begun = progress.total_steps > 0
                if begun and not looked:
                    looked = True
                    for warning in _warnings(Path(job.output.path), warned):
                        console.print(f"warning: {warning}")
                title = _title(progress) if begun else "starting"
                text = doing or (_text(job, progress) if begun else "")
                bar.update(
                    task, description=title, total=progress.total_steps or None, completed=progress.step, text=text
                )
                if not console.is_terminal:
                    if begun:
                        result = f"{_phase(progress)}: {_metric(job, progress.metrics)}".removesuffix(": ")
                        said.once("result", result, f" (step {progress.step} of {progress.total_steps})")
                    if doing:
                        said.once("activity", f"{title}: {doing}")
                time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        return


class _Said:
    """Prints lines of several kinds, each again only when it has changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, str] = {}

    def once(self, kind: str, line: str, also: str = "") -> None:
        """Print a line, unless the last one of its kind was the same; `also` stands behind it and does not count."""
        if self._last.get(kind) != line:
            self._last[kind] = line
            self._console.print(line + also)


def _warnings(folder: Path, warned: set[str]) -> list[str]:
    """Return what a run has said of its job, each sentence once, and none that `warned` has; they come to it."""
    try:
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return []
    said = dict.fromkeys(event["message"] for event in events if event.get("event") == "warning")
    found = [warning for warning in said if warning not in warned]
    warned.update(found)
    return found


def _workers(job: ResolvedJob) -> str:
    distribution = job.distribution
    stage = f" ZeRO-{distribution.zero_stage}" if distribution.zero_stage else ""
    count = distribution.world_size
    return f"{count} worker{'s' if count > 1 else ''} ({distribution.engine}{stage})"


def _title(progress: Progress) -> str:
    stage = f"stage {progress.stage}: " if progress.stage else ""
    return f"{stage}exporting" if progress.activity in ("Exporting", "Done") else _phase(progress)


def _phase(progress: Progress) -> str:
    stage = f"stage {progress.stage}: " if progress.stage else ""
    return f"{stage}phase {progress.phase_index + 1}/{progress.phase_count} {progress.phase_name}"


def _text(job: ResolvedJob, progress: Progress) -> str:
    parts = [f"step {progress.step}/{progress.total_steps}"]
    if progress.loss is not None:
        parts.append(f"loss {figure(progress.loss)}")
    if progress.metrics:
        parts.append(_metric(job, progress.metrics))
    if progress.samples_per_second:
        parts.append(f"{progress.samples_per_second:.0f} samples/s")
    if progress.eta_seconds is not None:
        parts.append(f"ETA {duration(progress.eta_seconds)}")
    return "  ".join(parts)


def _metric(job: ResolvedJob, metrics: dict[str, float]) -> str:
    name = job.metric.name
    return f"{name} {figure(metrics[name])}" if name in metrics else ""


def duration(seconds: float) -> str:
    """Return a time as people write it: 42s, 1m35s, 2h05m."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole}s"
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def closing_table(job: ResolvedJob, warned: Container[str] = ()) -> None:
    """Print what was trained, how well it went, where the model lies and how it is loaded; of warnings those that have not been printed."""
    from unfreeze_trainer.exports.evaluation import read_evaluation
    from unfreeze_trainer.exports.page import FILE

    folder = Path(job.output.path)
    report = read_report(folder)
    if report is None:
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(outcome(report, read_evaluation(folder)))
    for remark in _first(report, warned):
        console.print(remark)
    table = Table("phase", "trainable parameters", "steps", "time", f"validation {report.metric}", title=report.job)
    for column in table.columns[1:]:
        column.justify = "right"
    for phase in report.phases:
        value = phase.metrics.get(report.metric)
        table.add_row(
            phase.name,
            f"{phase.trainable_parameters:,}",
            str(phase.steps),
            duration(phase.seconds),
            "" if value is None else figure(value, 4),
        )
    console.print(table)
    console.print(f"best step {report.best_step}: validation {_line(report.results.validation)}")
    if report.results.test:
        console.print(f"test {_line(report.results.test)}")
    for remark in _remarks(report.data):
        console.print(remark)
    console.print(_cost(report))
    if (page := folder / FILE).is_file():
        console.print(f"all of it on one page: {page}")
    for export in report.exports:
        console.print(f"\n{export.kind}: {folder / export.folder}")
        if export.usage:  # reports of the first version have none
            console.print("\n".join(f"  {line}" if line else "" for line in export.usage.splitlines()))


def _first(report: Report, warned: Container[str]) -> Iterator[str]:
    """Yield what stands before all else."""
    if report.usefulness and not report.usefulness.better:
        yield f"no better than guessing: {report.usefulness.message}"
    for one in in_order(report.decisions):
        if one.type != "Useful" and not one.warning:  # these have been said
            yield f"decided: {one.type}: {one.message}"
    warnings = (*report.warnings, *map(went_back, report.rollbacks))
    yield from (f"warning: {warning}" for warning in dict.fromkeys(warnings) if warning not in warned)


def _cost(report: Report) -> str:
    """Return what all phases have cost together, without loading and export."""
    size, on_cpu = report.world.world_size, report.world.device == "cpu"
    hours = report.seconds * size / 3600
    places = f"{'worker' if on_cpu else 'accelerator'}{'s' if size > 1 else ''}"
    kind = "worker" if on_cpu else "accelerator"
    return f"trained for {duration(report.seconds)} on {size} {places}: {hours:.3g} {kind} hours"


def _remarks(data: DataReport) -> Iterator[str]:
    for pair, count in data.overlaps.items():
        whole = data.splits[pair.partition(" ")[0]]
        yield f"{count} of {whole} samples stand twice, {pair}: what is measured on them was seen before"
    for split, count in data.skipped.items():
        yield f"{count} {'sample' if count == 1 else 'samples'} of {split} could not be read and {'was' if count == 1 else 'were'} left out (spec.data.onError Skip)"


def _line(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {figure(value, 4)}" for name, value in metrics.items())
