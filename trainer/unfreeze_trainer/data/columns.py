"""The columns that a table must have, by their names."""

from __future__ import annotations

from collections.abc import Sequence

from unfreeze_api.apiserver.likely import likeliest
from unfreeze_trainer.errors import JobError, quoted

NO_HEADER = (
    "The first line reads like a row: if the file has no header, write names into a line before it, as text,label (docs/conversions.md has lines"
    " for several such files)"
)
LINES_BEFORE = "if other lines stand before the header, remove them"
_WORDS = 5
"""Of a name that is rather a text."""


def reads_like_a_row(names: Sequence[str]) -> bool:
    """Return whether the names of columns are rather the cells of a row: one of them is a text, or is a number and not its own place."""
    return any(len(name.split()) >= _WORDS or (name.isdecimal() and len(names) < int(name[:9])) for name in names)


_OTHERWISE = {
    "messages": {
        "causalLm.annotation: Completions": {"prompt", "completion"},
        "causalLm.annotation: Completions, and completion: chosen in columns, where that holds texts": {
            "prompt",
            "chosen",
        },
        "causalLm.annotation: Text": {"text"},
    },
    "tokens": {"tokenClassification.annotation: Spans": {"text", "spans"}},
    "positive": {"textEmbedding.annotation: Labels": {"anchor", "label"}},
}
"""Options of a task that read other columns than one that is missing, and their usual names."""


def check_columns(
    columns: Sequence[str], present: Sequence[str], where: str, *, first_row: bool = False, more: str = ""
) -> None:
    """Raise JobError when a column is missing, with those that exist and the likeliest one meant, or stands there twice.

    Parameters
    ----------
    first_row
        Whether the names are a file's first row, which is one of data where the header was left out.
    more
        What else is said of a missing one.
    """
    for column in columns:
        if present.count(column) > 1:
            raise JobError(
                "InvalidData",
                f"{where}: {present.count(column)} columns are called {column!r}; rename all of them but one",
            )
        if column not in present:
            likely = likeliest(column, present)
            hint = f"; did you mean {likely!r}?" if likely else "."
            of_anchor = where.startswith("spec.evidence.forgetting.anchor")
            field = "spec.evidence.forgetting.anchor.columns" if of_anchor else "spec.data.<part>.columns"
            ways = _OTHERWISE.get(column, {}).items()
            option = next((f"; or set spec.task.{way}" for way, own in ways if own <= {*present}), "")
            names = ", ".join(repr(name) for name in present[:50]) or "none"
            if first_row and reads_like_a_row(present):
                more += f". {NO_HEADER}"
            elif first_row and len(present) == 1:
                more += f"; {LINES_BEFORE}"
            raise JobError(
                "InvalidData",
                f"{where}: no column {column!r}{hint} The columns are {quoted(names) if first_row else names}; name the right one in"
                f" {field}{option}{more}",
            )
