"""The tables of docs/operations.md that follow from the contracts: reasons and figures.

`python -m unfreeze_api.generate.tables --write` writes them into the committed text, between the lines that name them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from unfreeze_api.contracts import reasons, series
from unfreeze_api.contracts.reasons import Explanation

FILE = Path(__file__).parents[3] / "docs" / "operations.md"
"""The committed text; a test proves that it is up to date."""
_PLACE = re.compile(r"(<!-- begin (.+?)(?:: .*?)? -->\n).*?(<!-- end \2 -->\n)", re.DOTALL)


def filled(text: str) -> str:
    """Return a text with its tables as they should be.

    Raises
    ------
    KeyError
        The text names a table that there is none of.
    """
    return _PLACE.sub(lambda place: f"{place[1]}\n{_TABLES[place[2]]()}\n{place[3]}", text)


def _figures(place: Literal["pod", "job"], head: str, prefix: str) -> str:
    rows = (
        (
            f"`{prefix}{name}{'_total' * (figure.kind == 'Counter')}`",
            figure.label.name if figure.label else "",
            figure.about,
        )
        for name, figure in series.at(place).items()
    )
    return table((head, "Labels", "Meaning"), rows)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    names = list(head)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in rows]
    return "\n".join(lines) + "\n"


def _reasons(explained: Mapping[Any, Explanation]) -> str:
    rows = ((f"`{reason}`", text.meaning, text.remedy) for reason, text in explained.items())
    return table(("Reason", "Meaning", "What to do"), rows)


_TABLES: dict[str, Callable[[], str]] = {
    **{f"condition {type_}": partial(_reasons, explained) for type_, explained in reasons.CONDITIONS.items()},
    "reasons of the trainer": partial(_reasons, reasons.TRAINER),
    "reasons of Events": partial(_reasons, reasons.EVENT),
    "reasons of pods": partial(_reasons, reasons.POD),
    "figures of pods": lambda: _figures("pod", "Series of trainer pods", series.POD_PREFIX),
    "figures of jobs": lambda: _figures("job", "Series of jobs while they are Running", series.JOB_PREFIX),
}


if __name__ == "__main__":
    text = filled(FILE.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
