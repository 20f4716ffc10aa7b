"""How messages list what they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Named(Protocol):
    """Something with a name."""

    @property
    def name(self) -> str:
        """Its name."""


def every(kinds: Sequence[Named]) -> str:
    """Return the names of all, like `A, B and C`."""
    return _listed(kinds, "and")


def either(kinds: Sequence[Named]) -> str:
    """Return the names of those of which one is to be taken, like `A, B or C`."""
    return _listed(kinds, "or")


def _listed(kinds: Sequence[Named], last: str) -> str:
    names = [kind.name for kind in kinds]
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
