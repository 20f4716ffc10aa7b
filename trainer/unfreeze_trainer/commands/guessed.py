"""What a table was taken for, and how columns are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unfreeze_api.tasks import task_type
from unfreeze_trainer.commands.facts import Facts, Look


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
    """Return the columns that look like one of some kinds, in their order."""
    return [one for one in facts.values() if one.look in looks]


def most_usual(found: Sequence[Facts], names: Sequence[str]) -> Facts:
    """Return the column whose name is the most usual one, of several such the one with the longest cells."""

    def order(one: Facts) -> tuple[int, float]:
        places = [names.index(word) for word in one.words if word in names]
        return (min(places, default=len(names)), -one.length)

    return min(found, key=order)
