"""Where things lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from unfreeze_api.grammar.model import EXECUTION, Model
from unfreeze_api.sources import locate
from unfreeze_api.sources.base import Places

if TYPE_CHECKING:
    pass


class Location(Model):
    """Where something lies: as the manifest says, and as the trainer sees it."""

    source: str
    """The manifest's text, for reports."""
    path: Annotated[str, EXECUTION]
    """The path for the trainer."""

    @classmethod
    def resolve(cls, source: str, places: Places, **more: Any) -> Self:
        """Return where a source lies, with what else is said of it."""
        return cls(source=source, path=locate(source, places), **more)
