"""The columns that a table must have, by their names."""

from __future__ import annotations

from collections.abc import Sequence

from unfreeze_api.apiserver.likely import likeliest
from unfreeze_trainer.errors import JobError, quoted


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
            names = ", ".join(repr(name) for name in present[:50]) or "none"
            raise JobError(
                "InvalidData",
                f"{where}: no column {column!r}{hint} The columns are {quoted(names) if first_row else names}; name the right one in"
                f" {field}{more}",
            )
