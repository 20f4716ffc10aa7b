"""What a table was taken for, and how columns are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unfreeze_api.tasks import task_type
from unfreeze_trainer.commands.facts import Facts, Look
from unfreeze_trainer.errors import some_of


@dataclass
class Guess:
    """A task and its columns."""

    task: str
    columns: dict[str, str] = field(default_factory=dict)
    """Fields of `columns` in the manifest, and the names that the table has for them."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the task, as in the manifest."""
    said: list[str] = field(default_factory=list)
    """What was decided among several, and how to have it otherwise, for people."""

    def renamed(self) -> dict[str, str]:
        """Return the columns that `columns` of the manifest has to name: those that are not called as by default."""
        reads = {column.name: column for column in task_type(self.task).reads}
        return {
            name: column
            for name, column in self.columns.items()
            if name in reads and (name != column or reads[name].optional)
        }


def looking(facts: Mapping[str, Facts], *looks: Look) -> list[Facts]:
    """Return the columns that look like one of some kinds, in their order: what holds files before what names some.

    Beside a picture's bytes a `path` or a `url` says where they came from, and leads nowhere here.
    """
    return sorted((one for one in facts.values() if one.look in looks), key=_by_place)


def beside(chosen: Facts, found: Sequence[Facts], what: str, field: str) -> list[str]:
    """Return what is said where other columns could have been taken as well, for people.

    Parameters
    ----------
    chosen, found
        The one that was taken, and all that look like it. Names of files are no choice beside files.
    what, field
        What it was taken for, and the field of `columns` that says otherwise.
    """
    others = [repr(one.name) for one in found if one is not chosen and _by_place(one) == _by_place(chosen)]
    if not others:
        return []
    return [f"column {chosen.name!r} was taken for {what}; {some_of(others)} could be it too: set columns.{field}"]


def _by_place(one: Facts) -> int:
    """Return how a column's files are found: in it, by names, or at addresses, which nobody fetches."""
    return 0 if one.content is not None else 1 + any("://" in value for value in one.values[:1])


def most_usual(found: Sequence[Facts], names: Sequence[str]) -> Facts:
    """Return the column whose name is the most usual one, of several such the one that is called so alone, or has the longest cells."""

    def order(one: Facts) -> tuple[int, bool, float]:
        places = [names.index(word) for word in one.words if word in names]
        return (min(places, default=len(names)), bool(places) and len(one.words) > 1, -one.length)

    return min(found, key=order)
