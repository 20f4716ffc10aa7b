"""report.html: what a finished run is worth, for a person, in one file that asks for nothing from outside.

It is made of the run folder's other files, so that `unfreeze report` writes it for older runs too. Everything that comes from
data is escaped by the template's engine, and the page's policy allows no script at all.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import itertools
import logging
import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze_api.contracts.decision import ALIKE
from unfreeze_api.contracts.evaluation import Evaluation, SplitFigures
from unfreeze_api.contracts.report import Report
from unfreeze_api.grammar.amounts import figure
from unfreeze_trainer.exports.charts import DOTS, Chart, Point, Reached, Span, lines, profile, reached, scatter
from unfreeze_trainer.exports.evaluation import ISSUES, read_evaluation
from unfreeze_trainer.exports.outcome import capital, in_order, outcome, went_back
from unfreeze_trainer.runs.choice import MEAN, read_choice, short_name
from unfreeze_trainer.runs.events import lines_of
from unfreeze_trainer.runs.rates import read_rates
from unfreeze_trainer.usefulness import wilson

if TYPE_CHECKING:
    from jinja2 import Environment, Template

    from unfreeze_api.contracts.decision import Decision
    from unfreeze_trainer.runs.generation import Generation

log = logging.getLogger(__name__)

FILE = "report.html"
_TEMPLATE, _STYLE = "page.html", "page.css"
_MAX_TEXT = 120
"""Characters that a label has in the page."""
_MAX_USAGE = 20_000
_ISSUES = 20
_MOST_EVIDENCE = 9
"""Figures of a decision that are open from the beginning."""
_SHOWN_CLASSES = 30
"""Classes of a table that is open from the beginning."""


def write_page(run_folder: Path, report: Report, generation: Generation) -> None:
    """Write the page of a run whose other files are there."""
    aside = generation.aside(FILE)
    aside.write_text(page(run_folder, report), encoding="utf-8")
    generation.commit(aside, run_folder / FILE)


def page(run_folder: Path, report: Report) -> str:
    """Return the page of a finished run."""
    evaluation = read_evaluation(run_folder)
    return template().render(
        report=report,
        evaluation=evaluation,
        **styled(),
        outcome=outcome(report, evaluation),
        decisions=[(one, pictures(one, run_folder, report)) for one in in_order(report.decisions)],
        curves=[
            *curves(run_folder / "history.csv", report, evaluation),
            *learned_and_lost(run_folder / "events.jsonl", report),
        ],
        splits=_splits(evaluation),
        metrics=_metrics(report, evaluation),
        notes=_notes(report),
        issues=_issues(run_folder / ISSUES),
        usages=[(one, one.usage[:_MAX_USAGE], len(one.usage) > _MAX_USAGE) for one in report.exports],
        shown_classes=_SHOWN_CLASSES,
        most_evidence=_MOST_EVIDENCE,
    )


@cache  # compiling it takes as long as training a small model for some steps
def template() -> Template:
    """Return what the page is made of, compiled."""
    environment = templates_of("exports")
    environment.filters |= {
        "count": _count,
        "figure": figure,
        "capital": capital,
        "amount": _amount,
        "short": _short,
        "seconds": _duration,
    }
    return environment.get_template(_TEMPLATE)


def templates_of(room: str) -> Environment:
    """Return the engine of the templates that lie in a folder of this package: it escapes what comes from data, and knows each name."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("unfreeze_trainer", room),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def styled() -> dict[str, str]:
    """Return the style of pages, and the hash by which a page's policy lets it in."""
    style = (Path(__file__).parent / _STYLE).read_text(encoding="utf-8")
    return {"style": style, "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _amount(value: float | None) -> str:
    """Return a figure of a decision: shares and rates with their digits, what counts as people write it."""
    return f"{value:,.0f}" if value is not None and abs(value) != 1 and value.is_integer() else figure(value)


def _short(text: object, most: int = _MAX_TEXT) -> str:
    shown = str(text)
    return shown if len(shown) <= most else shown[: most - 1] + "\u2026"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def pictures(decision: Decision, run_folder: Path, report: Report) -> list[Chart]:
    """Return charts of what a decision rests on."""
    found: Chart | None = None
    if decision.type == "Rates":
        return range_tests(run_folder, report.fingerprint)
    if decision.type == "Base" and (choice := read_choice(run_folder, report.fingerprint)):
        bases = {base["source"]: base["places"] for base in choice.ranking.get("bases", ())}
        layers = {
            short_name(source, [*bases.keys() - {source}]): {
                place: one["knn"] for place, one in places.items() if place != MEAN
            }
            for source, places in bases.items()
        }
        found = profile("what the neighbours of each layer tell, by candidate", layers, "layer, from input to output")
    elif decision.type == "Forgetting" and not any(
        ", by " in one.name for one in decision.evidence
    ):  # several encoders
        alike = {
            one.name.removeprefix(ALIKE): one.value
            for one in decision.evidence
            if one.name.startswith(ALIKE) and one.value is not None
        }
        found = profile(
            "how alike each layer is to the base's (linear CKA)", {"": alike}, "layer, from input to output"
        )
    elif decision.type in {"Strategy", "Scratch"}:
        timed = [
            (told[1], Reached(_short(told[2], 40), one.seconds, one.value, one.low, one.high))
            for one in decision.evidence
            if one.seconds is not None and one.value is not None
            if (told := re.match(r"(.+?) (?:of|from) (.+)", one.name))
        ]
        measured = timed[-1][0] if timed else ""  # a classical model may be known by another one
        same = [one for name, one in timed if name == measured]
        found = reached(f"{measured} by the seconds that each took", same, "seconds")
    return [found] if found else []


def curves(path: Path, report: Report, evaluation: Evaluation | None = None) -> list[Chart]:
    """Return charts of the training loss and of the metric that chose, by history.csv; none where there is no such file."""
    rows = _rows(path)
    phases = _phases(rows)
    found = []
    for name, column in (("training loss", "loss"), (f"validation {report.metric}", f"validation.{report.metric}")):
        points = [
            (number, value)
            for row in rows
            if (number := _number(row.get("step"))) is not None and (value := _number(row.get(column))) is not None
        ]
        spans = _intervals(points, report, evaluation) if column != "loss" else []
        if chart := lines(name + ", with 95 % intervals" * bool(spans), points, phases, "step", spans):
            found.append(chart)
    return found


def _intervals(points: list[Point], report: Report, evaluation: Evaluation | None) -> list[Span]:
    """Return the interval of each evaluation where its figure is a share of the rows, else of the best one where it is known."""
    rows = report.data.splits.get("validation", 0)
    if report.metric == "accuracy" and rows and len(points) <= DOTS:
        ends = [(step, wilson(value * rows, rows)) for step, value in points if 0 <= value <= 1]
    else:
        figures = evaluation.splits.get("validation") if evaluation else None
        known = figures.intervals.get(report.metric) if figures else None
        ends = [(float(report.best_step), known)] if known else []
    return [((step, low), (step, high)) for step, (low, high) in ends]


def learned_and_lost(path: Path, report: Report) -> list[Chart]:
    """Return a chart of the metric by what the base has lost, from evaluation to evaluation; none where only one looked."""
    metric, points, ends = dict[Any, Any](), dict[Any, Any](), dict[Any, tuple[Any, Any]]()
    for line in lines_of(path):
        step = line.get("step")
        if line.get("event") == "evaluation" and isinstance(line.get("metrics"), dict):
            metric[step] = line["metrics"].get(report.metric)
        elif line.get("event") == "rollback":
            points = {at: point for at, point in points.items() if at <= line.get("to", 0)}
        elif line.get("event") == "forgetting":
            points[step], ends[step] = line.get("lost"), (line.get("low"), line.get("high"))
    steps = [step for step in sorted(points) if None not in {points[step], metric.get(step)}]
    kept = [(points[step], metric[step]) for step in steps]
    spans = [
        ((low, metric[step]), (high, metric[step]))
        for step in steps
        for low, high in [ends[step]]
        if None not in {low, high}
    ]
    across = [lost for lost, _ in [*kept, *itertools.chain(*spans)]]
    edges = [("", min(across), max(across))] if across else []
    name = f"validation {report.metric} by what is lost of what the base could"
    found = lines(name, kept, edges, "lost, by the first gauge, with 95 % intervals", spans)
    return [found] if found else []


def range_tests(run_folder: Path, fingerprint: str) -> list[Chart]:
    """Return a chart of each range test: losses in proportion to those of before, by the power of ten of the rate."""
    found = []
    for test in chosen.tests if (chosen := read_rates(run_folder, fingerprint)) else ():
        after = zip(test.rates, test.losses[1:], test.before[1:], strict=False)
        points = [(math.log10(rate), loss / max(before, 1e-9)) for rate, loss, before in after]
        ends = [("", points[0][0], points[-1][0])] if points else []
        name = f"range test of the {test.part}: loss in proportion to that of before"
        if chart := lines(name, points, ends, "learning rate, as a power of ten"):
            found.append(chart)
    return found


def _rows(path: Path, most: int | None = None) -> list[dict[str, str]]:
    """Return the first rows of a table that the run has written; none where it is gone, or damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(itertools.islice(csv.DictReader(file), most))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        log.warning("%s cannot be read: %s", path, error)
        return []


def _number(cell: str | None) -> float | None:
    """Return the number in a cell; None of one that has none, or none that can be drawn."""
    try:
        found = float(cell or "")
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _phases(rows: list[dict[str, str]]) -> list[tuple[str, float, float]]:
    """Return name, first and last step of each phase."""
    found, start = [], 0.0
    for name, group in itertools.groupby(rows, key=lambda row: row.get("phase") or ""):
        end = max(_number(row.get("step")) or 0.0 for row in group)
        found.append((name, start, end))
        start = end
    return found


def _metrics(report: Report, evaluation: Evaluation | None) -> list[tuple[str, list[tuple[float | None, Any]]]]:
    """Return each metric with its value, and its interval if there is one, on each split."""
    of_splits = {"validation": report.results.validation, "test": report.results.test}
    used = [(split, values) for split, values in of_splits.items() if values]
    names = dict.fromkeys(name for _, values in used for name in values)
    intervals = {split: evaluation.splits[split].intervals for split in evaluation.splits} if evaluation else {}
    return [
        (name, [(values.get(name), intervals.get(split, {}).get(name)) for split, values in used]) for name in names
    ]


def _splits(evaluation: Evaluation | None) -> list[tuple[str, SplitFigures, list[Chart], list[list[int]]]]:
    """Return figures of each split, the test data first, with charts and shades of the confusion."""
    if evaluation is None:
        return []
    found = []
    for split in sorted(evaluation.splits):
        figures, charts = evaluation.splits[split], list[Chart | None]()
        charts += [
            scatter(f"{target.name}, as the model has it", target.points, "in the data")
            for target in figures.targets[:8]
        ]
        if figures.calibration:
            points = [(one.confidence, one.accuracy) for one in figures.calibration.bins]
            charts.append(scatter("accuracy by confidence", points, "confidence", alike=False))
        found.append((split, figures, [chart for chart in charts if chart], _shades(figures)))
    return found


def _shades(figures: SplitFigures) -> list[list[int]]:
    """Return from 0 to 9 how much of its row each cell of the confusion matrix has."""
    if not figures.confusion:
        return []
    return [[-(-9 * count // max(1, sum(row))) for count in row] for row in figures.confusion.counts]


def _notes(report: Report) -> list[str]:
    """Return what of the data a reader has to know: what was skipped, repeated, cut."""
    data = report.data
    notes = [
        f"{count:,} {'sample' if count == 1 else 'samples'} of {split} could not be read and {'was' if count == 1 else 'were'} left out."
        for split, count in data.skipped.items()
    ]
    notes += [
        f"{count:,} {'sample stands' if count == 1 else 'samples stand'} in two splits ({where}): what is measured on them flatters."
        for where, count in data.overlaps.items()
    ]
    notes += [
        f"The model does not see {count:,} words of {split}: their texts are cut before them, or they are nothing to its tokenizer."
        for split, count in data.unseen_words.items()
    ]
    notes += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in map(went_back, report.rollbacks)]
    return notes + list(report.warnings)


def _issues(path: Path) -> list[dict[str, str]]:
    """Return the rows whose labels are the least believable."""
    return [row for row in _rows(path, 10 * _ISSUES) if row.get("probable") == "yes"][:_ISSUES]
