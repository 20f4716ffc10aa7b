"""How a survey of data is printed for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from unfreeze_trainer.commands.surveyed import SourceSurvey, SplitSurvey, Spread, Survey

if TYPE_CHECKING:
    from rich.console import Console

_FILE_WIDTH = 10_000
_LABELS = 20
"""Labels that are listed."""
_WHOLE = 10_000
"""From where figures are shown without a fraction."""
_EXAMPLES = 2
"""Values of a column that are shown."""
_BROKEN = 5
"""Broken rows of a source that are listed."""


def print_survey(found: Survey) -> None:
    """Print a survey on the terminal, or into a file or a pipe."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    for line in found.decided:
        console.print(line)
    for name, source in found.sources.items():
        _print_source(console, name, source)
    _print_labels(console, found.splits)
    _print_figures(console, found.splits)
    for name, split in found.splits.items():
        if split.kinds:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in split.kinds.items())
            console.print(f"{name}: {split.files_read:,} of {split.samples:,} files were read whole: {kinds}")
    for warning in found.warnings:
        console.print(f"Warning: {warning}")


def _print_source(console: Console, name: str, source: SourceSurvey) -> None:
    from rich.table import Table

    left_out = f", {source.left_out:,} that cannot be read" if source.left_out else ""
    console.print(f"\n{name}: {source.source}, {source.rows:,} rows{left_out}")
    for line in source.broken[:_BROKEN]:
        console.print(f"  {line}")
    if source.left_out > _BROKEN:
        console.print("  ...")
    if not source.columns:
        return
    table = Table("column", "read as", "looks like", "missing", "different", "for example")
    for column in table.columns[3:5]:
        column.justify = "right"
    for one in source.columns:
        distinct = "" if one.distinct is None else f"{one.distinct:,}"
        examples = " | ".join(" ".join(example.split()) for example in one.examples[:_EXAMPLES])
        table.add_row(one.name, one.read_as, one.holds, f"{one.missing:,}", distinct, examples)
    console.print(table)


def _print_labels(console: Console, splits: Mapping[str, SplitSurvey]) -> None:
    from rich.table import Table

    console.print()
    labels = list(next(iter(splits.values())).labels) if splits else []
    if not labels:
        return
    table = Table("label", *(f"{name} ({split.samples:,})" for name, split in splits.items()))
    for column in table.columns[1:]:
        column.justify = "right"
    totals = {
        name: max(1, split.samples if split.without_label is not None else sum(split.labels.values()))
        for name, split in splits.items()
    }

    def cell(name: str, label: str) -> str:
        count = splits[name].labels.get(label, 0)
        return f"{count:,} ({100 * count / totals[name]:.1f} %)"

    for label in labels[:_LABELS]:
        table.add_row(label, *(cell(name, label) for name in splits))
    if any(split.without_label for split in splits.values()):
        table.add_row("(none)", *(f"{split.without_label or 0:,}" for split in splits.values()))
    console.print(table)
    if len(labels) > _LABELS:
        console.print(f"and {len(labels) - _LABELS:,} rarer labels; --output json has all")


def _print_figures(console: Console, splits: Mapping[str, SplitSurvey]) -> None:
    """Print numbers to predict, and lengths."""
    from rich.table import Table

    table = Table("split", "samples", "of each", "least", "median", "mean", "95 % have at most", "most")
    for column in table.columns[3:]:
        column.justify = "right"
    for name, split in splits.items():
        spreads: dict[str, Spread] = dict(split.values) | dict(split.lengths)
        for about, one in spreads.items():
            figures = (one.least, one.median, one.mean, one.most_have, one.most)
            table.add_row(
                name,
                f"{split.samples:,}",
                about,
                *map(_figure, figures),
            )
    if table.rows:
        console.print(table)


def _figure(figure: float) -> str:
    return f"{figure:,.4g}" if figure < _WHOLE else f"{figure:,.0f}"
